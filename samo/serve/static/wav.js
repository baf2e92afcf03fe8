// Mono 16-bit PCM WAV, the form in which the page sends sound that it decoded or recorded itself.

/** The mean of the channels of an AudioBuffer, Float32Array in [-1, 1]. */
export function mono(buffer) {
  if (buffer.numberOfChannels === 1) return buffer.getChannelData(0);
  const mixed = new Float32Array(buffer.length);
  for (let c = 0; c < buffer.numberOfChannels; c++) {
    const channel = buffer.getChannelData(c);
    for (let i = 0; i < mixed.length; i++) mixed[i] += channel[i];
  }
  for (let i = 0; i < mixed.length; i++) mixed[i] /= buffer.numberOfChannels;
  return mixed;
}

/** Samples in [-1, 1] at a rate in Hz as the bytes of a WAV file; what was decoded from 16 bits comes out unchanged. */
export function wavOf(samples, rate) {
  const bytes = new ArrayBuffer(44 + 2 * samples.length);
  const view = new DataView(bytes);
  const word = (at, text) => [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // one channel
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  const values = new Int16Array(samples.length);
  for (let i = 0; i < samples.length; i++) {
    values[i] = Math.max(-32768, Math.min(32767, Math.round(32768 * samples[i])));
  }
  // Every processor a browser runs on stores the low byte first, as WAV does.
  new Int16Array(bytes, 44).set(values);
  return new Blob([bytes], { type: "audio/wav" });
}
