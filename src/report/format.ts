/** Numbers of a report, for people. */

/** Bytes in decimal megabytes. */
export function megabytes(bytes: number): string {
  const mb = bytes / 1e6;
  return `${mb < 10 ? mb.toFixed(2) : grouped(Number(mb.toFixed(1)))} MB`;
}

/** 1234567 as "1,234,567", whatever the machine's language. */
export function grouped(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: 3 });
}

export function percent(share: number, digits = 1): string {
  return `${(100 * share).toFixed(digits)} %`;
}

/** A value with its standard error, both with `digits` decimals; without one where there is none. */
export function withError(value: number, stderr: number | null | undefined, digits: number): string {
  return value.toFixed(digits) + (typeof stderr === "number" ? ` ± ${stderr.toFixed(digits)}` : "");
}

export function percentWithError(share: number, stderr: number | null | undefined): string {
  return `${withError(100 * share, typeof stderr === "number" ? 100 * stderr : null, 1)} %`;
}

/** Three significant digits, without an exponent down to 0.0001. */
export function significant(value: number): string {
  if (value === 0) return "0";
  return Math.abs(value) < 1e-4 || Math.abs(value) >= 1e6
    ? value.toExponential(2)
    : String(Number(value.toPrecision(3)));
}
