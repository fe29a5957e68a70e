/**
 * Documents for word perplexity: WikiText is split into its articles and its spaced-out punctuation is undone,
 * as lm-evaluation-harness does before scoring (tasks/wikitext/preprocess_wikitext.py); words and bytes are
 * counted on what was there before. Any other document stays as it is.
 */

export interface Page {
  readonly original: string;
  /** What the model is given. */
  readonly scored: string;
}

/** Python's white space (str.isspace), which is not JavaScript's. */
const SPACE = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const SPACES = new RegExp(`${SPACE}+`, "u");
const SPACES_AT_END = new RegExp(`${SPACE}+$`, "u");

/** Where the white space at the end of a text begins. */
export function endWithoutSpace(text: string): number {
  // From the end: the expression alone would try every run of spaces in the text.
  let end = text.length;
  while (end > 0 && SPACES_AT_END.test(text[end - 1])) end--;
  return end;
}

/** Pieces between white space; an empty piece at either end counts, as in Python's re.split. */
export function countWords(text: string): number {
  return text.split(SPACES).length;
}

export function byteLength(text: string): number {
  return new TextEncoder().encode(text).byteLength;
}

/** The pages of a document: its articles when it begins with a title of WikiText (" = Title = "). */
export function readPages(document: string): Page[] {
  const lines = document.split("\n");
  const first = lines.find((line) => line.trim() !== "");
  if (first === undefined) return [];
  if (!isTitle(first)) return [{ original: document, scored: document }];
  const pages: Page[] = [];
  let page: string[] = [];
  const close = () => {
    const original = page.join("\n");
    if (original.trim() !== "") pages.push({ original, scored: withoutSpacedPunctuation(original) });
    page = [];
  };
  for (const line of lines) {
    if (isTitle(line)) close();
    page.push(line);
  }
  close();
  return pages;
}

/** " = Title = ", and not " = = Section = = ". */
function isTitle(line: string): boolean {
  return /^\s*= (?!=).* =\s*$/.test(line) && !/= =\s*$/.test(line);
}

/** In the harness's order; its replacements are of all occurrences. */
const REPLACEMENTS: readonly (readonly [string | RegExp, string])[] = [
  ["s '", "s'"],
  // The harness's expression has slashes in it that were meant as delimiters: it is kept as it works.
  [/\/' [0-9]\//g, "/'[0-9]/"],
  ...["-", ",", "."].map((mark) => [` @${mark}@ `, mark] as const),
  ...[":", ";", ".", "!", "?", ","].map((mark) => [` ${mark} `, `${mark} `] as const),
  [/\(\s*([^)]*?)\s*\)/g, "($1)"],
  [/\[\s*([^\]]*?)\s*\]/g, "[$1]"],
  [/\{\s*([^}]*?)\s*\}/g, "{$1}"],
  [/"\s*([^"]*?)\s*"/g, '"$1"'],
  [/'\s*([^']*?)\s*'/g, "'$1'"],
  ["= = = =", "===="],
  ["= = =", "==="],
  ["= =", "=="],
  [" ° ", "°"],
  [" \n", "\n"],
  ["\n ", "\n"],
  [" N ", " 1 "],
  [" 's", "'s"],
];

function withoutSpacedPunctuation(text: string): string {
  return REPLACEMENTS.reduce((out, [from, to]) => out.replaceAll(from, to), text);
}
