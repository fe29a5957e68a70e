/** The page: header with the model's size, the conversation, the composer, the settings. */
import { useEffect, useRef, useState } from "preact/hooks";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { loadSettings, saveSettings } from "./settings.js";
import { SettingsDialog } from "./settings-dialog.js";
import { sizeText } from "./size.js";
import { useChat } from "./use-chat.js";

export function App() {
  const [settings, setSettings] = useState(loadSettings);
  const [editing, setEditing] = useState(false);
  const chat = useChat(settings);
  const input = useRef<HTMLTextAreaElement>(null);
  const { model, messages, running, speed, error } = chat;

  useEffect(() => {
    if (chat.needsKey) setEditing(true);
  }, [chat.needsKey]);

  useEffect(() => {
    const stopOnEscape = (event: KeyboardEvent) => {
      if (event.key === "Escape" && !editing) chat.stop();
    };
    addEventListener("keydown", stopOnEscape);
    return () => removeEventListener("keydown", stopOnEscape);
  });

  const status = running
    ? `Answering${speed === null ? " …" : `, ${speed.toFixed(1)} tokens/s`}`
    : speed === null
      ? ""
      : `${speed.toFixed(1)} tokens/s`;
  return (
    <>
      <header>
        <div class="name">
          <h1>{model?.id ?? "PocketLLM"}</h1>
          <p class="size">{sizeText(model)}</p>
        </div>
        <button
          type="button"
          disabled={messages.length === 0}
          onClick={() => {
            chat.clear();
            input.current?.focus();
          }}
        >
          New
        </button>
        <button type="button" aria-haspopup="dialog" onClick={() => setEditing(true)}>
          Settings
        </button>
      </header>
      <Conversation messages={messages} running={running} continues={model?.chat === false} />
      <footer>
        {error !== null && (
          <p role="alert" class="error">
            {error}
          </p>
        )}
        <div class="status">
          <span data-testid="status">{status}</span>
          <button
            type="button"
            class="quiet"
            disabled={running || !messages.some(({ role }) => role === "user")}
            onClick={chat.regenerate}
          >
            Regenerate
          </button>
        </div>
        <Composer
          input={input}
          ready={model !== null}
          running={running}
          continues={model?.chat === false}
          onSend={chat.send}
          onStop={() => {
            chat.stop();
            input.current?.focus();
          }}
        />
      </footer>
      {editing && (
        <SettingsDialog
          settings={settings}
          hasSystem={model?.chat !== false}
          onSave={(changed) => {
            saveSettings(changed);
            setSettings(changed);
          }}
          onClose={() => setEditing(false)}
        />
      )}
    </>
  );
}
