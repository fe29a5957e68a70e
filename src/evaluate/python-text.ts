/** What Python's string methods do where JavaScript's differ: the harness's questions are made with these. */

/** str.isspace: not U+FEFF, which JavaScript trims; the separators U+001C to U+001F and U+0085, which it leaves. */
const SPACE =
  "[\\t-\\r\\u001c-\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const LEADING = new RegExp(`^${SPACE}+`);
const TRAILING = new RegExp(`${SPACE}+$`);

export function lstrip(text: string): string {
  return text.replace(LEADING, "");
}

export function strip(text: string): string {
  return lstrip(text).replace(TRAILING, "");
}

/** str.capitalize: the first character in title case, all others in lower case. */
export function capitalize(text: string): string {
  const [first] = text;
  if (first === undefined) return "";
  return titleCase(first) + lowerAfter(first, text);
}

/** Final sigma depends on what stands before it, so the whole is turned and the first character cut off. */
function lowerAfter(first: string, text: string): string {
  return text.toLowerCase().slice(first.toLowerCase().length);
}

/** Unicode's title case is upper case but for digraphs, Georgian, iota subscripts and characters that become several. */
function titleCase(character: string): string {
  const digraph = DIGRAPHS.find((forms) => forms.includes(character));
  if (digraph) return digraph[1];
  if (/[\u10d0-\u10ff]/.test(character)) return character;
  const [base, ...marks] = character.normalize("NFD");
  if (marks.includes("\u0345")) return (base.toUpperCase() + marks.join("")).normalize("NFC");
  const [head, ...rest] = character.toUpperCase();
  // U+0149 becomes an apostrophe and N.
  return head + (head === "\u02bc" ? rest.join("") : rest.join("").toLowerCase());
}

/** Upper, title and lower case of the letters that stand for two. */
const DIGRAPHS = ["ǄǅǆǄ", "ǇǈǉǇ", "ǊǋǌǊ", "ǱǲǳǱ"];
