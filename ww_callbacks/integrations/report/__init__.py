"""The report: one HTML file with the views, the verdict, the settings and what the quantities mean."""

from __future__ import annotations

from ww_callbacks.integrations.report.page import write_report

__all__ = ["write_report"]
