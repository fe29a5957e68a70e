/** A model card: README.md with the header in YAML that hubs read. */
import { grouped, megabytes, percent, percentWithError, withError } from "./format.js";
import { visible } from "./markup.js";
import { type ReportedFolder, tasksOf, textComparisons } from "./report.js";

export interface CardOptions {
  /** The hub's id of the original, `org/name`. */
  readonly baseModel?: string | undefined;
  /** The hub's id of the licence, such as apache-2.0. */
  readonly license?: string | undefined;
}

export function modelCard(folder: ReportedFolder, { baseModel, license }: CardOptions): string {
  const { ratio, weightBytes, bytes16, bitsPerWeight, parameters, architecture, parts } = folder.inspection;
  const { tool, toolVersion, source, options, calibration } = folder.made;
  const header = [
    "library_name: pocketllm",
    "pipeline_tag: text-generation",
    `tags: [pocketllm, compressed, ${architecture}]`,
    ...(license === undefined ? [] : [`license: ${yamlString(license)}`]),
    ...(baseModel === undefined
      ? []
      : [`base_model: ${yamlString(baseModel)}`, "base_model_relation: quantized"]),
    ...modelIndex(folder),
  ];
  const made: (readonly [string, string])[] = [
    ["made by", `${plain(tool)} ${plain(toolVersion)}`],
    ["made from", `${plain(source.format)}, SHA-256 ${source.sha256}`],
    ["manifest", `SHA-256 ${folder.manifestSha256}`],
    ...Object.entries(options).map(
      ([name, value]) =>
        [plain(name), plain(typeof value === "string" ? value : JSON.stringify(value))] as const,
    ),
    ...calibration.map(
      ({ name, sha256 }) => ["calibration text", `${plain(name)}, SHA-256 ${sha256}`] as const,
    ),
  ];
  return `---
${header.join("\n")}
---

# ${plain(folder.name)}

A ${architecture} model of ${grouped(Number((parameters / 1e6).toFixed(1)))} million parameters, compressed by PocketLLM: ${megabytes(weightBytes)} of weights instead of ${megabytes(bytes16)} in 16 bits, ${ratio.toFixed(2)} times smaller, ${bitsPerWeight.toFixed(3)} bits a weight with everything counted.

\`\`\`
npx pocketllm chat FOLDER
\`\`\`

## Sizes

${markdownTable(
  ["part", "weights", "bytes", "bits a weight"],
  parts.map((part) => [
    part.name,
    grouped(part.weights),
    grouped(part.bytes),
    part.weights > 0 ? part.bitsPerWeight.toFixed(3) : "–",
  ]),
)}
${qualityPart(folder)}${tasksPart(folder)}
## How it was made

${markdownTable(["", ""], made)}`;
}

function qualityPart(folder: ReportedFolder): string {
  const texts = textComparisons(folder);
  if (texts.length === 0) return "";
  const rows = texts.map((text) => [
    `${plain(text.text.name)}, ${text.protocol}, ${text.windows} x ${text.context} tokens`,
    text.perplexityBefore?.toFixed(2) ?? "–",
    withError(text.perplexity, text.perplexityStderr, 2),
    text.reference ? withError(text.reference.divergence.mean, text.reference.divergence.stderr, 4) : "–",
    text.reference ? percent(text.reference.sameTop) : "–",
  ]);
  return `
## Quality

${markdownTable(["text", "perplexity before", "perplexity", "KL divergence, nats", "same top token"], rows)}`;
}

function tasksPart(folder: ReportedFolder): string {
  const scores = [
    ...tasksOf(folder.evaluations).map((score) => ["compressed", score] as const),
    ...tasksOf(folder.original).map((score) => ["original", score] as const),
  ];
  if (scores.length === 0) return "";
  const rows = scores.map(([model, { name, acc, stderr, accNorm, accNormStderr, n }]) => [
    plain(name),
    model,
    percentWithError(acc, stderr),
    accNorm === null ? "–" : percentWithError(accNorm, accNormStderr),
    String(n),
  ]);
  return `
## Tasks

${markdownTable(["task", "model", "acc", "acc_norm", "questions"], rows)}`;
}

/** The hub's form of results. */
function modelIndex(folder: ReportedFolder): string[] {
  const results = [
    ...textComparisons(folder).map(({ text, perplexity }) => [text.name, "perplexity", perplexity] as const),
    ...tasksOf(folder.evaluations).map(({ name, acc }) => [name, "accuracy", acc] as const),
  ];
  if (results.length === 0) return [];
  return [
    "model-index:",
    `- name: ${yamlString(folder.name)}`,
    "  results:",
    ...results.flatMap(([data, metric, value]) => [
      "  - task: {type: text-generation}",
      `    dataset: {name: ${yamlString(data)}, type: ${yamlString(data)}}`,
      `    metrics: [{type: ${metric}, value: ${value}}]`,
    ]),
  ];
}

function markdownTable(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |\n`;
  return line(columns) + line(columns.map(() => "---")) + rows.map(line).join("");
}

/** A string in YAML's double-quoted form, which JSON's is; without "<", for those who show the header in a page. */
function yamlString(text: string): string {
  return JSON.stringify(visible(text)).replaceAll("<", "\\u003c");
}

/** Text from a file on one line that Markdown shows as it is. */
function plain(text: string): string {
  return visible(text).replace(/[\\`*_{}[\]<>()#+!|~&:@]/g, "\\$&");
}
