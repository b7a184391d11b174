"""Where a file of the repository stands on the site, and links that lead there."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from _errors import SiteError

__all__ = ["Addresses"]

_CODE = re.compile(r"(^```.*?^```|^~~~.*?^~~~|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
# [text](target) and [text](target "title"), pictures too; not the targets in angle brackets, which nobody writes here.
_LINK = re.compile(r"(?P<head>\]\()(?P<target>[^)\s]+)(?P<tail>(?:\s+\"[^\"]*\")?\))")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//|#", re.IGNORECASE)


@dataclass(frozen=True)
class Addresses:
    """Turns links that hold in the repository into links that hold on the site.

    Attributes:
        root: the clone.
        repository: address of the repository, e.g. ``https://github.com/owner/name``.
        pages: files of the site's source tree (``"notebooks/03_batchnorm.ipynb"``) by the file of the repository that
            they show, both relative with forward slashes.
        branch: the branch that links to the repository name.
        lenient: whether a link to a missing file is left to fail later, as in a draft.
    """

    root: Path
    repository: str
    pages: Mapping[str, str]
    branch: str = "main"
    lenient: bool = False

    def file_url(self, path: str) -> str:
        """Return the address of a file or folder on the repository's web page."""
        kind = "tree" if (self.root / path).is_dir() else "blob"
        return f"{self.repository}/{kind}/{self.branch}/{path}"

    def rewrite(self, markdown: str, *, file: str, page: str) -> str:
        """Return the text with its relative links changed for the site.

        A link to a file that has a page leads to the page, any other to the repository. Code is left alone.

        Args:
            markdown: the text.
            file: where it stands in the repository.
            page: the file of the site's source tree that will hold it.

        Raises:
            SiteError: a link names a file that does not exist.
        """

        def changed(match: re.Match[str]) -> str:
            return f"{match['head']}{self._target(match['target'], file, page)}{match['tail']}"

        parts = _CODE.split(markdown)
        return "".join(part if index % 2 else _LINK.sub(changed, part) for index, part in enumerate(parts))

    def _target(self, target: str, file: str, page: str) -> str:
        if _ELSEWHERE.match(target):
            return target
        path, hash_sign, fragment = target.partition("#")
        full = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
        if full in self.pages:
            return posixpath.relpath(self.pages[full], posixpath.dirname(page) or ".") + hash_sign + fragment
        if not self.lenient and (full.startswith("..") or not (self.root / full).exists()):
            raise SiteError(f"{file} links to {target}, and there is no {full} in the repository")
        return self.file_url(full) + hash_sign + fragment
