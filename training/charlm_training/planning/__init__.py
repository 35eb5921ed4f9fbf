"""What a run is asked to do, and its sizes and schedule."""
