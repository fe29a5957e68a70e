/**
 * The plan of a compression: which rate every matrix, and every tier of rows of embedding and head, is coded
 * at, so that all weight files together stay within the target. Sizes are exact and known before any work.
 *
 * What errors cost is taken from a fixed table, rounded from measurements of SmolLM2-135M: errors in v_proj, in
 * the first and last layers and in the rows of frequent tokens cost most. Where there is calibration text it is
 * what is measured on the model (sensitivity.ts), inside the layers the geometric mean of both: second-order
 * costs hold for small errors and overrate the lowest rates, where the table does better. SmolLM2-135M at 10x, 8x
 * and 6x (KL, 3 windows): table 1.703, 1.036, .450; measured 1.785, 1.087, .431; mean of both 1.683, 1.019, .416.
 */
import type { TensorInfo } from "../checkpoint/checkpoint.js";
import { buildSafetensorsHeader } from "../checkpoint/safetensors.js";
import { WEIGHT_METADATA } from "../container/build.js";
import { InputError } from "../errors.js";
import { allocate } from "./allocate.js";
import type { MatrixInfo } from "./matrices.js";

/** A way to code a matrix. `bytes` and `tensors` are exact for the given number of rows and columns. */
export interface Rate<Code> {
  /** For people: "2 bits". */
  readonly name: string;
  readonly code: Code;
  /** Mean squared error on a unit Gaussian. */
  readonly distortion: number;
  /** The tensors that a coded matrix of this size stores. */
  tensors(
    rows: number,
    columns: number,
  ): readonly { readonly suffix: string; readonly dtype: "U8" | "F16"; readonly shape: readonly number[] }[];
}

/** Rows [start, end) of a matrix, coded apart. */
export interface PlannedTier<Code> {
  readonly rows: readonly [start: number, end: number];
  readonly rate: Rate<Code>;
}

export interface PlannedMatrix<Code> extends MatrixInfo {
  /** One tier that covers all rows, or several. */
  readonly tiers: readonly PlannedTier<Code>[];
}

export interface CompressionPlan<Code> {
  readonly matrices: readonly PlannedMatrix<Code>[];
  /** Bytes of the weight files, headers included: exact while they fit one file of 256 MiB. */
  readonly predictedBytes: number;
  /** The same at the lowest rates everywhere: no target below is in reach. */
  readonly smallestBytes: number;
}

export interface PlanOptions<Code> {
  readonly matrices: readonly MatrixInfo[];
  /** Tensors that are stored as they are, two bytes a value: norms and biases. */
  readonly plain: readonly TensorInfo[];
  /** Names of all of these in the order in which they will lie in the file. */
  readonly order: readonly string[];
  /** Largest size of the weight files. */
  readonly budget: number;
  /** By ascending size. */
  readonly rates: (rows: number, columns: number) => readonly Rate<Code>[];
  readonly layers: number;
  /** Measured costs of all matrices. Default: the fixed table of this file alone. */
  readonly sensitivities?: Sensitivities | undefined;
  /** Take errors of all weights as equally costly, whatever was measured. Default false. */
  readonly uniform?: boolean | undefined;
}

/** What errors of one matrix cost, in nats a token. */
export interface MatrixSensitivity {
  /** Per unit of a rate's distortion, for each tier of rows. */
  readonly tiers: readonly number[];
  /** What squared error in each row is to count for in the search, in any one unit. Default: the same. */
  readonly rows?: readonly number[];
}

/** Of each matrix, by its name. */
export type Sensitivities = Readonly<Record<string, MatrixSensitivity>>;

/**
 * Tiers of embedding and head as parts of the vocabulary: byte-pair ids follow frequency, so the first sixth
 * (8,192 of 49,152) holds nearly every token of a text.
 */
const TIER_ENDS = [1 / 48, 1 / 24, 1 / 12, 1 / 6, 1 / 3, 1 / 2, 1] as const;
const TIER_IMPORTANCE = [40, 10, 5, 2.5, 1.5, 0.8, 0.45] as const;
/** Fewer rows than this are not worth a tier's tables and header. */
const MINIMUM_TIER_ROWS = 512;

/** Throws InputError when even the lowest rates exceed the budget. */
export function planCompression<Code>(options: PlanOptions<Code>): CompressionPlan<Code> {
  const { matrices, plain, order, budget, rates, layers, sensitivities, uniform } = options;
  const units = matrices.flatMap((matrix) => tiersOf(matrix).map((tier) => ({ matrix, ...tier })));
  const names = (unit: (typeof units)[number], rate: Rate<Code>) => {
    const rows = unit.rows[1] - unit.rows[0];
    const prefix = unit.part === null ? unit.matrix.name : `${unit.matrix.name}.${unit.part}`;
    return rate
      .tensors(rows, unit.matrix.columns)
      .map(({ suffix, dtype, shape }) => ({ name: `${prefix}.${suffix}`, dtype, shape }));
  };
  const data = (entries: readonly { dtype: "U8" | "F16"; shape: readonly number[] }[]) =>
    entries.reduce((sum, { dtype, shape }) => sum + shape.reduce((n, s) => n * s, dtype === "U8" ? 1 : 2), 0);
  const plainEntries = plain.map(({ name, shape }) => ({ name, dtype: "F16" as const, shape }));
  const offered = units.map((unit) => rates(unit.rows[1] - unit.rows[0], unit.matrix.columns));
  /** What the file holds, in its order, with rate `choice[i]` for unit i. */
  const stored = (choice: readonly number[]) => {
    const byName = new Map<string, { name: string; dtype: "U8" | "F16"; shape: readonly number[] }[]>(
      plainEntries.map((entry) => [entry.name, [entry]]),
    );
    for (const [i, unit] of units.entries()) {
      const parts = names(unit, offered[i][choice[i]]);
      byName.set(unit.matrix.name, [...(byName.get(unit.matrix.name) ?? []), ...parts]);
    }
    return order.flatMap((name) => byName.get(name)!);
  };
  const fileBytes = (choice: readonly number[]) => {
    const entries = stored(choice);
    return buildSafetensorsHeader(entries, WEIGHT_METADATA).byteLength + data(entries);
  };
  // The header's length hardly depends on the choice: shapes' digits and offsets; leave 2 % of it as play.
  const overhead = Math.ceil(
    1.02 * buildSafetensorsHeader(stored(units.map(() => 0)), WEIGHT_METADATA).byteLength,
  );
  const assumed = units.map(
    ({ matrix, rows, importance }) =>
      (uniform ? 1 : importanceOf(matrix, importance, layers)) * (rows[1] - rows[0]) * matrix.columns,
  );
  const measured = uniform ? undefined : sensitivities;
  const weights = measured
    ? temper(
        units.map(({ matrix, part }) => measured[matrix.name].tiers[part ?? 0]),
        assumed,
        units.map(({ matrix }) => matrix.layer !== null),
      )
    : assumed;
  const choice = allocate(
    units.map((unit, i) => ({
      weight: weights[i],
      options: offered[i].map((rate) => ({ bytes: data(names(unit, rate)), distortion: rate.distortion })),
    })),
    budget - overhead - data(plainEntries),
  );
  const smallest = fileBytes(units.map(() => 0));
  if (choice === null)
    throw new InputError(
      `the target of ${Math.floor(budget)} bytes is out of reach: the lowest rates give ${smallest} bytes; ask for a smaller ratio or more bits`,
    );
  let next = 0;
  return {
    matrices: matrices.map((matrix) => ({
      ...matrix,
      tiers: tiersOf(matrix).map(({ rows }) => {
        const i = next++;
        return { rows, rate: offered[i][choice[i]] };
      }),
    })),
    predictedBytes: fileBytes(choice),
    smallestBytes: smallest,
  };
}

/**
 * Measured costs, those of the layers' matrices as the geometric mean with the assumed ones, scaled so that the
 * layers together cost what was measured: the table knows the parts of a layer, not what a vocabulary costs
 * beside them. pocket-stories, whose vocabulary is a tenth of SmolLM2's: 10x .326 with the mean everywhere, .262.
 */
function temper(
  measured: readonly number[],
  assumed: readonly number[],
  inLayer: readonly boolean[],
): number[] {
  const means = measured.map((x, i) => Math.sqrt(x * assumed[i]));
  const sum = (costs: readonly number[]) => costs.reduce((total, x, i) => total + (inLayer[i] ? x : 0), 0);
  const scale = sum(means) > 0 ? sum(measured) / sum(means) : 1;
  return measured.map((x, i) => (inLayer[i] ? scale * means[i] : x));
}

/** The tiers of rows that embedding and head are cut into: [start, end) each. */
export function tierRows(rows: number): (readonly [start: number, end: number])[] {
  return tiersOfVocabulary(rows).map(({ rows: range }) => range);
}

function tiersOfVocabulary(
  vocabulary: number,
): { rows: readonly [start: number, end: number]; importance: number }[] {
  const tiers: { rows: readonly [number, number]; importance: number }[] = [];
  let start = 0;
  for (const [i, part] of TIER_ENDS.entries()) {
    // Multiples of 16 rows keep the interleaved sequences of every tier equally long.
    const end = part === 1 ? vocabulary : Math.round((vocabulary * part) / 16) * 16;
    if (end - start < MINIMUM_TIER_ROWS && part < 1) continue;
    tiers.push({ rows: [start, end], importance: TIER_IMPORTANCE[i] });
    start = end;
  }
  return tiers;
}

function tiersOf(
  matrix: MatrixInfo,
): { rows: readonly [number, number]; part: number | null; importance: number }[] {
  const whole = { rows: [0, matrix.rows] as const, part: null, importance: 1 };
  if (matrix.kind !== "embedding" && matrix.kind !== "head") return [whole];
  const tiers = tiersOfVocabulary(matrix.rows);
  return tiers.length === 1 ? [whole] : tiers.map((tier, part) => ({ ...tier, part }));
}

/** Of errors in the middle of the model, by kind of matrix. */
const KIND_IMPORTANCE: Readonly<Record<MatrixInfo["kind"], number>> = {
  embedding: 1,
  head: 1,
  q: 1.5,
  k: 3,
  v: 20,
  o: 1.3,
  gate: 1,
  up: 1.2,
  down: 1.2,
};

/** What an error of a weight costs, relative to one of a gate matrix in the middle of the model. */
function importanceOf(matrix: MatrixInfo, tier: number, layers: number): number {
  if (matrix.layer === null) return tier;
  const { kind, layer } = matrix;
  const attention = kind === "q" || kind === "k" || kind === "v";
  const place = attention ? 1 : layer === 0 ? 4 : layer === layers - 1 ? 3 : 1;
  return KIND_IMPORTANCE[kind] * place;
}
