/** A compression plan as lines for people: matrices of one kind together, layers of one rate as a range. */
import type { PlannedRate } from "../compress/index.js";

/** Such as "mlp.up_proj    layer 0: 3 bits, 1-28: 1.5 bits, 29: 3 bits". */
export function planLines(plan: readonly PlannedRate[]): string[] {
  const kinds = new Map<string, { at: string; first: number; last: number; rate: string }[]>();
  for (const { name, rows, rate } of plan) {
    const layer = /^model\.layers\.(\d+)\.(.+)$/.exec(name);
    const kind = layer ? layer[2] : name;
    const [first, last] = layer ? [Number(layer[1]), Number(layer[1])] : [rows[0], rows[1] - 1];
    const ranges = kinds.get(kind) ?? [];
    kinds.set(kind, ranges);
    const before = ranges.at(-1);
    if (before && before.rate === rate && before.last + 1 === first) before.last = last;
    else ranges.push({ at: layer ? "layer" : "row", first, last, rate });
  }
  const width = Math.max(...[...kinds.keys()].map((kind) => kind.length));
  return [...kinds].map(([kind, ranges]) => {
    const parts = ranges.map(
      ({ first, last, rate }) => `${first === last ? first : `${first}-${last}`}: ${rate}`,
    );
    return `${kind.padEnd(width)}  ${ranges[0].at} ${parts.join(", ")}`;
  });
}
