// The server's key: asked for when it is needed, kept until the tab is closed.
import { byId } from "./nodes.js";

const NAME = "samo-key";

/** The key given before; empty without one. */
export function storedKey() {
  return sessionStorage.getItem(NAME) ?? "";
}

/** Ask for a key; whether one was given. */
export function askForKey(wrong) {
  const dialog = byId("key");
  const value = byId("key-value");
  const help = byId("key-help");
  help.textContent = wrong
    ? "That key was not accepted. Type it again, or ask whoever runs this server."
    : "Whoever runs it has given you one. It is kept until this tab is closed.";
  help.classList.toggle("wrong", wrong);
  value.value = "";
  return new Promise((resolve) => {
    const form = dialog.querySelector("form");
    form.onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(NAME, value.value.trim());
      dialog.onclose = null;
      dialog.close();
      resolve(true);
    };
    dialog.onclose = () => resolve(false);
    byId("key-cancel").onclick = () => dialog.close();
    dialog.showModal();
  });
}
