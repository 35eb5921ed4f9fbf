"""Admission, the fair queue, delivery, and the thread of an engine."""
