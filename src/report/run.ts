/** A whole report from paths to files (Node only): reads, measures where asked, writes the page and the cards. */
import { mkdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { writeAtomically } from "../checkpoint/safetensors-write.js";
import { exists } from "../container/disk.js";
import { JsonField } from "../container/json.js";
import { InputError, UsageError } from "../errors.js";
import { type RunEvaluationOptions, runEvaluation } from "../evaluate/run.js";
import { TOOL, VERSION } from "../version.js";
import { type CardOptions, modelCard } from "./card.js";
import { type FolderFacts, readFolderFacts } from "./folder-facts.js";
import { reportPage } from "./page.js";
import { joinMeasurements, type Report } from "./report.js";
import { type EvaluationResult, parseEvaluation, readEvaluation, readSpeeds } from "./results.js";

/** What `eval` takes for every folder; absent: nothing is measured. */
export type ReportMeasurement = Pick<
  RunEvaluationOptions,
  "reference" | "text" | "protocol" | "context" | "windows" | "tasks" | "limit"
>;

export interface RunReportOptions {
  /** Paths of PocketLLM folders. */
  readonly folders: readonly string[];
  /** Files that `eval --out` wrote, of these folders or of the models that they were made from. */
  readonly evaluations?: readonly string[] | undefined;
  /** Files that `bench --json` wrote, of these folders. */
  readonly speeds?: readonly string[] | undefined;
  /** Measured now, folder by folder; each result is kept beside the page. */
  readonly measure?: ReportMeasurement | undefined;
  /** The page: a file whose name ends in .html. */
  readonly out: string;
  /** Write README.md into each folder. Default: no. */
  readonly card?: (CardOptions & { readonly overwrite: boolean }) | undefined;
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: RunEvaluationOptions["onProgress"];
  readonly onNote?: ((line: string) => void) | undefined;
}

export interface WrittenReport extends Report {
  /** What was written. */
  readonly out: string;
  readonly cards: readonly string[];
}

const CARD_FILE = "README.md";

/** Everything is checked before anything is measured. InputError, UsageError and CorruptFileError, one line each. */
export async function runReport(options: RunReportOptions): Promise<WrittenReport> {
  const { out, card } = options;
  await checkOut(out);
  const facts: FolderFacts[] = [];
  for (const path of options.folders) facts.push(await readFolderFacts(path));
  const cards = card ? facts.map(({ path }) => join(path, CARD_FILE)) : [];
  if (card) for (const folder of facts) await checkCard(folder, card.overwrite);
  const evaluations = await Promise.all((options.evaluations ?? []).map(readEvaluation));
  const speeds = (await Promise.all((options.speeds ?? []).map(readSpeeds))).flat();
  joinMeasurements(facts, evaluations, speeds);

  if (options.measure) evaluations.push(...(await measure(facts, options.measure, options)));
  const folders = joinMeasurements(facts, evaluations, speeds);
  const report = { tool: { name: TOOL, version: VERSION }, folders };
  await writeText(out, reportPage(report));
  if (card) for (const [i, folder] of folders.entries()) await writeText(cards[i], modelCard(folder, card));
  return { ...report, out, cards };
}

async function checkOut(out: string): Promise<void> {
  if (!out.endsWith(".html")) throw new UsageError(`${out}: the report's name must end in .html`);
  const found = await stat(out).catch(() => undefined);
  if (found && !found.isFile()) throw new InputError(`${out} is not a file: name one for the report`);
  await mkdir(dirname(out), { recursive: true });
}

async function checkCard({ path, inspection }: FolderFacts, overwrite: boolean): Promise<void> {
  if (inspection.files.some(({ name }) => name === CARD_FILE))
    throw new InputError(`${path}: its manifest seals ${CARD_FILE}, so no card can be written there`);
  if (!overwrite && (await exists(join(path, CARD_FILE))))
    throw new InputError(`${join(path, CARD_FILE)} is there already: give --force to write it anew`);
}

/** One folder after the other; a result that is finished stays though a later one fails. */
async function measure(
  folders: readonly FolderFacts[],
  measurement: ReportMeasurement,
  { out, threads, signal, onProgress, onNote }: RunReportOptions,
): Promise<EvaluationResult[]> {
  const results: EvaluationResult[] = [];
  for (const { path, manifestSha256 } of folders) {
    const kept = out.replace(/\.html$/, `.${manifestSha256.slice(0, 8)}.eval.json`);
    const run = { ...measurement, model: path, out: kept, threads, signal, onProgress, onNote };
    const measured = await runEvaluation(run);
    results.push(parseEvaluation(new JsonField(measured, `${kept}:`), kept));
    onNote?.(`measured ${path}: kept in ${kept}`);
  }
  return results;
}

async function writeText(path: string, text: string): Promise<void> {
  await writeAtomically(path, (write) => write(new TextEncoder().encode(text)));
}
