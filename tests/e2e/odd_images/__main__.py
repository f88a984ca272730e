"""Writes the list of odd images into docs/images.md: python -m tests.e2e.odd_images"""

from __future__ import annotations

from tests.e2e.odd_images.page import PAGE, with_list

PAGE.write_text(with_list(PAGE.read_text()))
