"""Progress and logs of a run."""
