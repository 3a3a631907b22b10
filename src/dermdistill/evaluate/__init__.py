"""What a model can do on its test part: metrics, operating points, calibration, intervals."""
