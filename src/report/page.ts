/** A report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere. */
import { html, trusted } from "./markup.js";
import type { Report } from "./report.js";
import { compareSection } from "./section-compare.js";
import { folderSection } from "./section-folder.js";
import { tasksSection } from "./section-tasks.js";
import { STYLE } from "./style.js";

export function reportPage({ folders, tool }: Report): string {
  const alone = folders.length === 1;
  const title = alone ? folders[0].name : `${folders.length} compressed models`;
  const page = html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${title} – PocketLLM report</title><style>${trusted(STYLE)}</style></head>
<body><header><h1>${title}</h1><p class="note">${alone ? "A language model" : "Language models"} compressed by PocketLLM.</p></header>
<main>${compareSection(folders)}${alone && folderSection(folders[0], 0, true)}${tasksSection(folders)}${
    !alone && folders.map((folder, i) => folderSection(folder, i, false))
  }</main>
<footer><p>Ratio: bytes of all weights in 16 bits over bytes of every weight file. Perplexity and divergence: standard errors take tokens as independent. Written by ${tool.name} ${tool.version}.</p></footer>
</body></html>
`;
  return page.toString();
}
