"""Dynamic INT8: ranges measured anew for every image. Not shipped; it is what others use, and ten times slower here."""

from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from dermdistill.atomic import atomic_path
from dermdistill.compress.onnx_export import first_line, quiet, random_inputs, run_onnx, strip_notes
from dermdistill.errors import ExportError
from dermdistill.preprocess import PreprocessSpec


def quantize_dynamically(fp32: Path, path: Path, spec: PreprocessSpec) -> None:
    """Write the dynamically quantized version of an exported model, convolutions included.

    Args:
        fp32: file of ``export_onnx``.
        path: file to write, whole or not at all.
        spec: the preprocessing of the model.

    Raises:
        ExportError: it cannot be quantized, or the file does not run.
        OutputError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        prepared = temporary.with_name(f"{temporary.name}.prepared")
        try:
            with quiet():
                quant_pre_process(str(fp32), str(prepared))
                # ONNX Runtime has integer convolutions with unsigned weights alone.
                quantize_dynamic(str(prepared), str(temporary), weight_type=QuantType.QUInt8)
            strip_notes(temporary)
            run_onnx(temporary, random_inputs(2, spec))
        except OSError:
            raise
        except Exception as error:
            raise ExportError(f"{fp32.name} cannot be quantized dynamically ({first_line(error)})") from error
        finally:
            prepared.unlink(missing_ok=True)
