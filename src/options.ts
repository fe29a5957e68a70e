/** Checks of options that several programs share. */
import { UsageError } from "./errors.js";

/** Throws UsageError unless `value` is a whole number from `low` to `high`; `name` is the option's. */
export function checkWhole(name: string, value: number, low: number, high: number): void {
  if (!Number.isInteger(value) || value < low || value > high)
    throw new UsageError(`${name} must be a whole number from ${low} to ${high}, not ${value}`);
}
