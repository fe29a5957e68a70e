/**
 * The one error that users see. Anything wrong with an input, an option or the environment is thrown as an
 * `InputError` whose message is one clear line: what is wrong, and what to do. The command line prints that
 * line and exits with 1 (or 2 for `UsageError`); every other error is a defect of ours and says so.
 */
export class InputError extends Error {
  override name = "InputError";
}

/** A wrong option or argument: exit code 2. */
export class UsageError extends InputError {
  override name = "UsageError";
}

/** A file from outside is damaged or hostile: truncated, overlapping, hash mismatch, impossible sizes. */
export class CorruptFileError extends InputError {
  override name = "CorruptFileError";
}

/** Throws the signal's reason when it is aborted. Long loops call this once per unit of work. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  signal?.throwIfAborted();
}
