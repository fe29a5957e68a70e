/** The settings in a modal dialog: the browser keeps the focus inside, closes it on Esc and gives the focus back. */
import { useEffect, useRef } from "preact/hooks";
import type { Settings } from "./settings.js";

interface SettingsDialogProps {
  readonly settings: Settings;
  /** Whether the model knows a system prompt. */
  readonly hasSystem: boolean;
  readonly onSave: (settings: Settings) => void;
  readonly onClose: () => void;
}

export function SettingsDialog({ settings, hasSystem, onSave, onClose }: SettingsDialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current!.showModal(), []);

  const save = (form: HTMLFormElement) => {
    const data = new FormData(form);
    const text = (name: string) => String(data.get(name) ?? "");
    onSave({
      temperature: Number(text("temperature")),
      topP: Number(text("topP")),
      maxTokens: Number(text("maxTokens")),
      system: hasSystem ? text("system") : settings.system,
      apiKey: text("apiKey").trim(),
    });
  };
  return (
    <dialog ref={dialog} aria-labelledby="settings-title" onClose={onClose}>
      <form
        method="dialog"
        onSubmit={(event) => {
          event.preventDefault();
          save(event.currentTarget);
          dialog.current!.close();
        }}
      >
        <h2 id="settings-title">Settings</h2>
        <NumberField
          name="temperature"
          label="Temperature"
          value={settings.temperature}
          min="0"
          max="2"
          step="any"
        />
        <NumberField name="topP" label="Top-p" value={settings.topP} min="0" max="1" step="any" />
        <NumberField
          name="maxTokens"
          label="Most tokens of an answer"
          value={settings.maxTokens}
          min="1"
          max="100000"
          step="1"
        />
        {hasSystem && (
          <label>
            System prompt
            <textarea name="system" rows={3} defaultValue={settings.system} />
          </label>
        )}
        <label>
          API key, if the server asks for one
          <input name="apiKey" type="password" autocomplete="off" defaultValue={settings.apiKey} />
        </label>
        <div class="buttons">
          <button type="button" onClick={() => dialog.current!.close()}>
            Cancel
          </button>
          <button type="submit" class="primary">
            Save
          </button>
        </div>
      </form>
    </dialog>
  );
}

interface NumberFieldProps {
  readonly name: string;
  readonly label: string;
  readonly value: number;
  readonly min: string;
  readonly max: string;
  readonly step: string;
}

function NumberField({ name, label, value, ...range }: NumberFieldProps) {
  return (
    <label>
      {label}
      <input name={name} type="number" required {...range} defaultValue={String(value)} />
    </label>
  );
}
