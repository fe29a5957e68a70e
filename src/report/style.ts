/** The report's style sheet: light and dark by the reader's setting, one column on a phone, paper. */
export const STYLE = `
:root { color-scheme: light dark; --paper: #fcfcfa; --ink: #1b1f24; --muted: #59636e; --line: #d5d9de; --card: #f1f3f5;
  --accent: #0b62c4; --c0: #0b62c4; --c1: #c2410c; --c2: #15803d; --c3: #a21caf; --c4: #8a6d00; --c5: #0e7490; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e6e9ec; --muted: #9aa4ae; --line: #343b42; --card: #1e2328;
  --accent: #6cb0ff; --c0: #6cb0ff; --c1: #ff9a5c; --c2: #5fd08a; --c3: #e58cf0; --c4: #dcbf4a; --c5: #5fc8dc; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1.5rem 1rem 3rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 2.2rem 0 .6rem; border-top: 1px solid var(--line); padding-top: 1.2rem; }
h3 { font-size: 1.02rem; margin: 1.5rem 0 .4rem; }
p { margin: .3rem 0 .7rem; max-width: 46rem; }
.note, footer { color: var(--muted); font-size: .88rem; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .86em; unicode-bidi: isolate; }
a { color: var(--accent); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .6rem; margin: .8rem 0; padding: 0; list-style: none; }
.facts li { background: var(--card); border-radius: .5rem; padding: .6rem .8rem; }
.facts b { display: block; font-size: 1.25rem; line-height: 1.25; }
.facts span { color: var(--muted); font-size: .85rem; }
.scroll { overflow-x: auto; margin: .4rem 0 .8rem; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); font-size: .85rem; padding-bottom: .25rem; }
th, td { padding: .28rem .7rem .28rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; vertical-align: top; }
th { font-weight: 600; }
thead th { color: var(--muted); font-weight: 500; vertical-align: bottom; }
tbody th, th:first-child, td.text { text-align: left; }
td.text { white-space: normal; min-width: 12rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .9rem; margin: .4rem 0; }
dt { color: var(--muted); } dd { margin: 0; min-width: 0; }
summary { cursor: pointer; color: var(--accent); font-size: .9rem; padding: .2rem 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem 2rem; align-items: start; }
figure { margin: .5rem 0; max-width: 32rem; }
figcaption { font-size: .9rem; font-weight: 600; margin-bottom: .3rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font: 10px system-ui, sans-serif; }
.axis line { stroke: var(--muted); } line.grid { stroke: var(--line); stroke-width: .7; }
.axis line.grid { stroke: var(--line); }
.cell { fill: var(--accent); } .error { stroke: var(--ink); stroke-width: 1.1; }
.front { fill: none; stroke: var(--muted); stroke-dasharray: 4 3; }
.mark { stroke: var(--paper); stroke-width: .8; }
.s0 { fill: var(--c0); } .s1 { fill: var(--c1); } .s2 { fill: var(--c2); } .s3 { fill: var(--c3); } .s4 { fill: var(--c4); } .s5 { fill: var(--c5); }
.key { display: inline-block; width: 1em; height: 1em; vertical-align: -.12em; margin-right: .35em; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
@media print { :root { color-scheme: light; } body { max-width: none; padding: 0; font-size: 10pt; } .scroll { overflow: visible; }
  details::details-content { content-visibility: visible; block-size: auto; } summary { list-style: none; }
  figure, tr, .facts li { break-inside: avoid; } h2, h3 { break-after: avoid; } * { print-color-adjust: exact; } }
`;
