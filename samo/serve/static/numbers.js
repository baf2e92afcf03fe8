// Numbers in words: shares, times, counts.

/** A share in [0, 1] as a percentage with one decimal, as `samo predict` would round it. */
export function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

/** Seconds as m:ss, or h:mm:ss. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const tail = `${String(s).padStart(2, "0")}`;
  return h ? `${h}:${String(m).padStart(2, "0")}:${tail}` : `${m}:${tail}`;
}

/** A length as people say it: 3.2 s, 4 min 05 s. */
export function length(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
}

/** "1 window", "3 windows". */
export function counted(n, noun) {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}
