/** Numbers for people. */

/** Bytes in decimal megabytes, as model files are listed: "26.8 MB". */
export function megabytes(bytes: number): string {
  const mb = bytes / 1e6;
  return `${mb < 10 ? mb.toFixed(2) : mb.toFixed(1)} MB`;
}
