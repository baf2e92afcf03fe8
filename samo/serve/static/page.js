// The page: makes its parts work, and asks the server for its models.
import { prepareFiles } from "./files.js";
import { discard, prepareMicrophone } from "./microphone.js";
import { attempt, begin, repeat, setStatus } from "./question.js";
import { loadModels, whenChosen } from "./served.js";
import { prepareWriting } from "./writing.js";

prepareMicrophone();
prepareFiles();
prepareWriting();
whenChosen(repeat, () => {
  discard();
  begin();
  setStatus("");
});
attempt(async () => {
  setStatus("Looking for models …", "thinking");
  await loadModels();
  setStatus("");
});
