"""How the report looks: dark on white, and on paper as on a screen."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { --ink: #1c2126; --soft: #565f68; --line: #d9dee3; --pass: #17632f; --warn: #7d4a00;
  --fail: #9b1c1c; --skip: #4a525a; --error: #5b2a86; }
* { box-sizing: border-box; }
body { max-width: 52rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; background: #fff;
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; }
h2 { margin: 0 0 .6rem; font-size: 1.25rem; }
a { color: inherit; font-weight: 600; }
.answer { margin: .5rem 0 1.25rem; font-size: 1.2rem; }
dl.subject { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0;
  color: var(--soft); font-size: .9rem; }
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
nav { margin: 1.75rem 0; }
nav ol { margin: 0; padding: 0; list-style: none; border-top: 1px solid var(--line); }
nav li { display: grid; grid-template-columns: 8.5rem 1fr; gap: .75rem; align-items: start;
  padding: .55rem 0; border-bottom: 1px solid var(--line); }
nav li.skip { color: var(--soft); }
.badge { display: inline-block; padding: .1rem .55rem; border: 1px solid; border-radius: .3rem;
  justify-self: start; font-size: .8rem; font-weight: 700; line-height: 1.45;
  vertical-align: .15em; white-space: nowrap; }
.badge.pass { color: var(--pass); background: #e8f5ec; }
.badge.warn { color: var(--warn); background: #fff4dc; }
.badge.fail { color: #fff; background: var(--fail); border-color: var(--fail); }
.badge.skip { color: var(--skip); background: #f1f3f5; }
.badge.error { color: var(--error); background: #f4ecfb; }
section > h2::first-letter { text-transform: uppercase; }
section { margin: 2.25rem 0; padding-top: 1.5rem; border-top: 2px solid var(--ink); }
.question { margin: 0 0 .75rem; color: var(--soft); font-style: italic; }
.finding { margin: 0 0 .75rem; font-size: 1.05rem; }
.finding::first-letter { text-transform: uppercase; }
.advice { margin: 0 0 1rem; padding: .6rem .9rem; border-left: 4px solid var(--warn);
  background: #fdf8ee; }
figure { margin: 1rem 0; }
img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .9rem; }
table { margin: 1rem 0; border-collapse: collapse; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right;
  font-weight: normal; }
thead th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
summary { color: var(--soft); font-size: .9rem; cursor: pointer; }
.about { color: var(--soft); font-size: .9rem; }
.about p { margin: .5rem 0 0; }
@media (max-width: 36rem) { nav li { grid-template-columns: 1fr; gap: .25rem; } }
@media print { body { max-width: none; padding: 0; } section, figure { break-inside: avoid; }
  .badge, .advice { print-color-adjust: exact; } }
"""
