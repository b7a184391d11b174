"""Support package of the course; notebooks import from its modules, e.g. ``from course_utils.models import MLP``."""

__version__ = "0.1.0"
