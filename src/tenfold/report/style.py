"""The style sheet of a report: one for phone and desk, light and dark. Nothing is loaded from anywhere."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f5f6f8; --edge: #d9dde2; --text: #16191d; --quiet: #555d66;
  --kept: #0072b2; --whole: #cfd5dc; --left: #8b949e; --worse: #c64f00; --rank: #16191d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #121417; --card: #1c1f24; --edge: #343a41; --text: #e8eaed; --quiet: #a7afb8;
    --kept: #56b4e9; --whole: #3b424a; --left: #78828c; --worse: #ff9a4d; --rank: #e8eaed;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 20px 16px 48px; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 40px 0 8px; }
h3 { font-size: 1rem; margin: 0 0 8px; }
p, .notes { margin: 0 0 8px; max-width: 56em; } .notes { padding-left: 1.2em; } .lead { font-size: 1.125rem; }
.quiet, figcaption, small { color: var(--quiet); font-size: .875rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); gap: 12px; margin: 16px 0; }
.tile, figure { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 14px; margin: 0; min-width: 0; }
.tile b { font-size: 1.75rem; line-height: 1.15; font-variant-numeric: tabular-nums; }
.tile .warn { color: var(--worse); } .tile p { margin: 0; } .tile .two { display: flex; flex-wrap: wrap; gap: 4px 24px; margin-bottom: 4px; }
.tile span { display: block; color: var(--quiet); font-size: .9rem; }
.tile h2 { color: var(--quiet); font-size: 1rem; font-weight: 600; margin: 0 0 4px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); gap: 12px; }
.uneven { align-items: start; }
.minis { display: grid; grid-template-columns: repeat(auto-fill, minmax(145px, 1fr)); gap: 8px; }
.minis figure { padding: 8px; }
.minis figcaption { font-size: .8rem; line-height: 1.3; overflow-wrap: anywhere; }
svg { display: block; width: 100%; max-width: 460px; height: auto; overflow: visible; font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
svg text { fill: currentColor; font-variant-numeric: tabular-nums; }
svg .axis { fill: var(--quiet); font-size: 11px; }
svg .rankname { font-size: 11px; font-weight: 700; }
.kept { fill: var(--kept); } .whole { fill: var(--whole); } .left { fill: var(--left); } .worse { fill: var(--worse); }
.line { stroke: var(--text); stroke-width: 1; stroke-dasharray: 3 3; } .mark, .whisker { stroke: var(--text); stroke-width: 1.5; }
.grid { stroke: var(--edge); } .frame { stroke: var(--quiet); } .rank { stroke: var(--rank); stroke-width: 1.2; stroke-dasharray: 4 3; }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round; } .dense { stroke: var(--left); } .small { stroke: var(--kept); }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; vertical-align: -1px; margin-right: .3em; }
.key.kept { background: var(--kept); } .key.whole { background: var(--whole); } .key.left { background: var(--left); } .key.worse { background: var(--worse); }
.scroll { overflow-x: auto; border: 1px solid var(--edge); border-radius: 10px; }
table { border-collapse: collapse; font-size: .875rem; width: 100%; }
th, td { padding: 6px 7px; text-align: left; vertical-align: top; border-bottom: 1px solid var(--edge); white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.wide { white-space: normal; min-width: 12rem; } td small, th small { display: block; font-size: .8125rem; font-weight: 400; }
td.slower { color: var(--worse); font-weight: 600; }
thead th { background: var(--card); white-space: normal; vertical-align: bottom; } thead th.number { max-width: 8rem; } tfoot td, tfoot th { font-weight: 600; }
.layers th:first-child { position: sticky; left: 0; background: var(--card); min-width: min(11rem, 34vw); max-width: 14rem; white-space: normal; overflow-wrap: anywhere; font-weight: 600; }
tbody tr:last-child > * { border-bottom: 0; } tfoot tr > * { border-top: 1px solid var(--edge); }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 12px; font-size: .8125rem; line-height: 1.45; }
pre.command { white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; margin: 0; } dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
details > summary { cursor: pointer; padding: 6px 0; }
"""
