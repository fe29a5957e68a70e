/** Tables with headers and a caption, which scroll by themselves where the screen is narrow. */
import { type Content, html, type Markup } from "./markup.js";

export interface Table {
  readonly caption: string;
  /** The first is of the column that names the rows. */
  readonly columns: readonly string[];
  /** The first cell of a row is its header. */
  readonly rows: readonly (readonly Content[])[];
}

export function table({ caption, columns, rows }: Table): Markup {
  return html`<div class="scroll" role="region" aria-label="${caption}" tabindex="0"><table><caption>${caption}</caption>
<thead><tr>${columns.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
<tbody>${rows.map(
    ([first, ...cells]) =>
      html`<tr><th scope="row">${first}</th>${cells.map((cell) => html`<td>${cell === null || cell === undefined || cell === false ? "–" : cell}</td>`)}</tr>
`,
  )}</tbody></table></div>
`;
}

/** Shown when asked for: long tables. */
export function folded(summary: string, content: Content): Markup {
  return html`<details><summary>${summary}</summary>${content}</details>
`;
}

export function definitions(entries: readonly (readonly [string, Content])[]): Markup {
  return html`<dl>${entries.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
`;
}
