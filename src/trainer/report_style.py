"""The report's style sheet."""

STYLE = """
:root { color-scheme: light; --ink: #1d2733; --faint: #6b7684; --line: #e4e8ed; --ground: #f4f6f8 }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 36px 20px 60px }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px }
.summary { font-size: 18px; margin: 0 0 26px; max-width: 62em }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 18px 22px; margin: 16px 0 }
h2 { font-size: 17px; margin: 0 0 10px }
p { color: var(--faint); max-width: 62em }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th { text-align: left; font-weight: 600; color: var(--faint); font-size: 12.5px; vertical-align: bottom }
th, td { padding: 6px 10px 6px 0; border-bottom: 1px solid var(--line) }
td { vertical-align: top }
tbody tr:last-child td { border-bottom: 0 }
.n { font-variant-numeric: tabular-nums }
small, figcaption { color: var(--faint) }
code { font-size: 12.5px; overflow-wrap: anywhere }
.plot { display: block; max-width: 100%; margin: 4px auto 10px }
.pair { display: flex; flex-wrap: wrap; gap: 12px; justify-content: center }
.films { display: grid; grid-template-columns: repeat(auto-fill, minmax(430px, 1fr)); gap: 18px }
figure { margin: 0 } figure img { max-width: 100%; border-radius: 6px }
figcaption { font-size: 13px; margin-top: 4px }
"""
