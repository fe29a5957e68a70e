/** Progress of a long operation: called by stages, shown by surfaces. `done` and `total` are in any one unit. */
export type OnProgress = (progress: {
  readonly stage: string;
  readonly done: number;
  readonly total: number;
  readonly detail?: string;
}) => void;
