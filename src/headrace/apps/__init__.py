"""The apps role: what engineers wrote, evaluated as samples come, and its results given to the log."""
