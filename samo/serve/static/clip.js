// One recording: the bytes that are sent, and the samples that are drawn.
import { mono, wavOf } from "./wav.js";

// Rate at which sound is decoded that the server cannot read: that of nearly all telephones, so nothing is resampled twice.
const SENT_HZ = 48000;
// For drawing alone.
const DRAWN_HZ = 16000;
// Decoding needs eight times as much memory.
const MOST_DRAWN_BYTES = 200e6;

// First bytes of what the server decodes itself, so that a file is heard there exactly as `samo predict` hears it.
const READ_BY_SERVER = [/^RIFF....WAVE/s, /^RF64/, /^riff/, /^fLaC/, /^OggS/, /^ID3/, /^FORM....AIF/s, /^\.snd/, /^caff/];

/**
 * @typedef {object} Clip
 * @property {string} name
 * @property {Blob} sent bytes for the server
 * @property {Blob} played bytes for the player
 * @property {Float32Array|null} samples mono in [-1, 1]; null where this browser cannot decode the file
 * @property {number} rate of the samples, in Hz
 */

/** The samples of a microphone, as a clip. */
export function recordedClip(samples, rate) {
  const wav = wavOf(samples, rate);
  return { name: "recording.wav", sent: wav, played: wav, samples, rate, recorded: true };
}

/** A file as a clip: as it is where the server can read it, else decoded here. */
export async function fileClip(file) {
  const kept = await readByServer(file);
  const rate = kept ? DRAWN_HZ : SENT_HZ;
  const samples = file.size > MOST_DRAWN_BYTES ? null : await decoded(file, rate);
  const sent = kept || !samples ? file : wavOf(samples, rate);
  return { name: file.name, sent, played: file, samples, rate, recorded: false };
}

/** The same recording in fewer bytes, mono at the model's rate; null where it has no fewer. */
export async function smallerClip(clip, rate) {
  const samples = await decoded(clip.played, rate);
  const sent = samples && wavOf(samples, rate);
  return sent && sent.size < clip.sent.size ? { ...clip, sent } : null;
}

async function readByServer(file) {
  const head = new Uint8Array(await file.slice(0, 12).arrayBuffer());
  const letters = String.fromCharCode(...head);
  // MPEG audio frames; layer bits of 0 are AAC, which the server cannot read.
  const frames = head[0] === 0xff && (head[1] & 0xe0) === 0xe0 && (head[1] & 0x06) !== 0;
  return frames || READ_BY_SERVER.some((form) => form.test(letters));
}

async function decoded(file, rate) {
  try {
    const context = new OfflineAudioContext(1, 1, rate);
    return mono(await context.decodeAudioData(await file.arrayBuffer()));
  } catch {
    return null;
  }
}
