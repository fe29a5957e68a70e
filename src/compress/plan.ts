/**
 * The plan of a compression: which rate every matrix, and every tier of rows of embedding and head, is coded
 * at, so that all weight files together stay within the target. Sizes are exact and known before any work.
 *
 * The importance of a weight is a fixed table here, rounded from what was seen on small models: errors
 * in v_proj, in the first layer and in the rows of frequent tokens cost most.
 */
import type { TensorInfo } from "../checkpoint/checkpoint.js";
import { buildSafetensorsHeader } from "../checkpoint/safetensors.js";
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
}

export interface PlanOptions<Code> {
  readonly matrices: readonly MatrixInfo[];
  /** Tensors that are stored as they are, two bytes a value: norms and biases. */
  readonly plain: readonly TensorInfo[];
  /** Largest size of the weight files. */
  readonly budget: number;
  /** By ascending size. */
  readonly rates: (rows: number, columns: number) => readonly Rate<Code>[];
  readonly layers: number;
}

/**
 * Tiers of embedding and head as parts of the vocabulary: byte-pair ids follow frequency, so the first sixth
 * (8,192 of 49,152) holds nearly every token of a text.
 */
const TIER_ENDS = [1 / 24, 1 / 6, 1 / 2, 1] as const;
const TIER_IMPORTANCE = [8, 5, 1, 1 / 2] as const;
/** Fewer rows than this are not worth a tier's tables and header. */
const MINIMUM_TIER_ROWS = 512;

/** Throws InputError when even the lowest rates exceed the budget. */
export function planCompression<Code>(options: PlanOptions<Code>): CompressionPlan<Code> {
  const { matrices, plain, budget, rates, layers } = options;
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
  const fileBytes = (choice: readonly number[]) => {
    const entries = units.flatMap((unit, i) => names(unit, offered[i][choice[i]]));
    return (
      buildSafetensorsHeader([...plainEntries, ...entries]).byteLength + data([...plainEntries, ...entries])
    );
  };
  // The header's length hardly depends on the choice: shapes' digits and offsets; leave 2 % of it as play.
  const overhead = Math.ceil(
    1.02 *
      buildSafetensorsHeader(units.flatMap((u, i) => names(u, offered[i][0])).concat(plainEntries))
        .byteLength,
  );
  const choice = allocate(
    units.map((unit, i) => ({
      weight:
        importance(unit.matrix, unit.importance, layers) *
        (unit.rows[1] - unit.rows[0]) *
        unit.matrix.columns,
      options: offered[i].map((rate) => ({ bytes: data(names(unit, rate)), distortion: rate.distortion })),
    })),
    budget - overhead - data(plainEntries),
  );
  if (choice === null) {
    const smallest = fileBytes(units.map(() => 0));
    throw new InputError(
      `the target of ${Math.floor(budget)} bytes is out of reach: the lowest rates give ${smallest} bytes; ask for a smaller ratio or more bits`,
    );
  }
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
  };
}

function tiersOf(
  matrix: MatrixInfo,
): { rows: readonly [number, number]; part: number | null; importance: number }[] {
  const whole = { rows: [0, matrix.rows] as const, part: null, importance: 1 };
  if (matrix.kind !== "embedding" && matrix.kind !== "head") return [whole];
  // Multiples of 16 rows keep the interleaved sequences of every tier equally long.
  const ends = TIER_ENDS.map((part) =>
    part === 1 ? matrix.rows : Math.round((matrix.rows * part) / 16) * 16,
  );
  if (ends[0] < MINIMUM_TIER_ROWS) return [whole];
  return ends.map((end, part) => ({
    rows: [part === 0 ? 0 : ends[part - 1], end] as const,
    part,
    importance: TIER_IMPORTANCE[part],
  }));
}

/** What an error of a weight costs, relative to one of a feed-forward matrix in the middle of the model. */
function importance(matrix: MatrixInfo, tier: number, layers: number): number {
  if (matrix.layer === null) return tier;
  const place = matrix.layer === 0 ? 4 : matrix.layer >= layers - 2 ? 1.75 : 1;
  return matrix.kind === "v" ? 8 * Math.min(place, 2) : place;
}
