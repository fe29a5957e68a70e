/**
 * Bit allocation under a byte budget: minimise the sum of sensitivity x distortion over items that each offer
 * a few sizes. Greedy over the items' lower convex hulls, which is the optimum of the Lagrangian relaxation;
 * what is left at the end is filled with the best steps that still fit.
 */
export interface AllocationOption {
  readonly bytes: number;
  /** Mean squared error of a unit-variance weight at this rate. */
  readonly distortion: number;
}

export interface AllocationItem {
  /** What one unit of distortion on this item costs; any one unit for all items. */
  readonly weight: number;
  /** By ascending bytes. */
  readonly options: readonly AllocationOption[];
}

/**
 * The chosen option's index for each item, or null when even the smallest options exceed `budget` bytes.
 * Ties go to the earlier item, so that the same input always gives the same plan.
 */
export function allocate(items: readonly AllocationItem[], budget: number): number[] | null {
  const choice = items.map(() => 0);
  let bytes = 0;
  for (const item of items) bytes += item.options[0].bytes;
  if (bytes > budget) return null;

  const steps: { item: number; from: number; to: number; gain: number; cost: number }[] = [];
  items.forEach((item, index) => {
    const hull = lowerHull(item.options);
    for (let i = 1; i < hull.length; i++) {
      const a = item.options[hull[i - 1]];
      const b = item.options[hull[i]];
      const gain = item.weight * (a.distortion - b.distortion);
      steps.push({ item: index, from: hull[i - 1], to: hull[i], gain, cost: b.bytes - a.bytes });
    }
  });
  steps.sort((a, b) => b.gain / b.cost - a.gain / a.cost || a.item - b.item || a.from - b.from);
  for (const step of steps) {
    // A step is only open when the item stands where the step begins.
    if (choice[step.item] !== step.from || bytes + step.cost > budget) continue;
    choice[step.item] = step.to;
    bytes += step.cost;
  }
  return choice;
}

/** Indices of the options on the lower convex hull of distortion over bytes, ascending bytes. */
function lowerHull(options: readonly AllocationOption[]): number[] {
  const hull: number[] = [];
  for (let i = 0; i < options.length; i++) {
    if (hull.length > 0 && options[i].distortion >= options[hull.at(-1)!].distortion) continue;
    while (hull.length >= 2) {
      const [a, b] = [options[hull.at(-2)!], options[hull.at(-1)!]];
      const slope = (a.distortion - b.distortion) * (options[i].bytes - b.bytes);
      const next = (b.distortion - options[i].distortion) * (b.bytes - a.bytes);
      if (slope > next) break;
      hull.pop();
    }
    hull.push(i);
  }
  return hull;
}
