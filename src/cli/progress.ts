/**
 * Progress on stderr: a bar with ETA on a terminal, otherwise a plain line every 10 % of any stage that lasts
 * longer than a moment.
 */
import { Presets, SingleBar } from "cli-progress";
import type { OnProgress } from "../progress.js";

export interface ProgressDisplay {
  readonly update: OnProgress;
  /** Clears the bar so that a line can be printed; the next update draws it again. */
  pause(): void;
  stop(): void;
}

export function createProgress(stream: NodeJS.WriteStream = process.stderr): ProgressDisplay {
  return stream.isTTY ? barProgress(stream) : lineProgress(stream);
}

function barProgress(stream: NodeJS.WriteStream): ProgressDisplay {
  let bar: SingleBar | undefined;
  let stage = "";
  const stop = () => {
    bar?.stop();
    bar = undefined;
  };
  return {
    update: ({ stage: next, done, total, detail = "" }) => {
      if (bar && next !== stage) stop();
      stage = next;
      if (!bar) {
        bar = new SingleBar(
          {
            stream,
            format: "{stage} {bar} {percentage}% | ETA {eta_formatted} | {detail}",
            clearOnComplete: true,
            hideCursor: true,
            etaBuffer: 50,
          },
          Presets.shades_classic,
        );
        bar.start(total, done, { stage, detail });
      }
      bar.update(done, { stage, detail });
    },
    pause: stop,
    stop,
  };
}

/** Stages shorter than this print no lines. */
const MOMENT_SECONDS = 2;

function lineProgress(stream: NodeJS.WriteStream): ProgressDisplay {
  let stage = "";
  let started = 0;
  let next = 0;
  return {
    update: ({ stage: name, done, total, detail = "" }) => {
      if (name !== stage) {
        stage = name;
        started = performance.now();
        next = 0;
      }
      const part = total > 0 ? done / total : 1;
      const seconds = (performance.now() - started) / 1000;
      if (part < next || seconds < MOMENT_SECONDS) return;
      next = Math.floor(part * 10 + 1) / 10;
      const eta = part > 0 && part < 1 ? `, ETA ${Math.ceil((seconds * (1 - part)) / part)} s` : "";
      stream.write(`${name}: ${Math.round(part * 100)} %${eta}${detail ? ` (${detail})` : ""}\n`);
    },
    pause: () => {},
    stop: () => {},
  };
}
