"""Homework for a class: release it with nbgrader, repair what comes back, grade it unattended, sum it up."""

from course_utils.grading.batch import grade
from course_utils.grading.execution import Limits
from course_utils.grading.releasing import GradingError, release
from course_utils.grading.report import Row, Task

__all__ = ["GradingError", "Limits", "Row", "Task", "grade", "release"]
