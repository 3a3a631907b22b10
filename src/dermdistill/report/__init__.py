"""The HTML report of a run, and the results pages made of committed runs."""
