// Drawing on a canvas in the colours of the style sheet, sharp on every screen, again whenever size or colours change.

const dark = matchMedia("(prefers-color-scheme: dark)");

/** A colour of the style sheet, such as `accent`. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Keep a canvas drawn; gives a function that draws it again. */
export function kept(canvas, draw) {
  const again = () => {
    const { width, height } = canvas.getBoundingClientRect();
    if (!width || !height) return;
    const scale = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    const ink = canvas.getContext("2d");
    ink.setTransform(scale, 0, 0, scale, 0, 0);
    ink.clearRect(0, 0, width, height);
    draw(ink, width, height);
  };
  const sized = new ResizeObserver(() => {
    if (!canvas.isConnected) dark.removeEventListener("change", again);
    again();
  });
  sized.observe(canvas);
  dark.addEventListener("change", again);
  return again;
}
