"""Checks that take a student's function and answer in a sentence; one module for each notebook.

A check returns a `Verdict`, which a notebook shows when it ends a cell; `require` raises unless it is right, for graded
cells; `progress` shows what is solved so far.
"""

from course_utils.homework.engine.verdict import Progress, Verdict, WrongAnswerError, progress, require

__all__ = ["Progress", "Verdict", "WrongAnswerError", "progress", "require"]
