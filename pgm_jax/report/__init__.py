"""Figures and reports of finished runs; arrays come in, files go out."""

from pgm_jax.report.comparison import Panel as Panel, comparison_figure as comparison_figure
from pgm_jax.report.contact_sheet import contact_sheet as contact_sheet
from pgm_jax.report.few_step import few_step_figure as few_step_figure
from pgm_jax.report.html import html_report as html_report
