// Runs before the first paint, so that a chosen theme doesn't flash; everything else waits for the module.
(() => {
  let theme = new URLSearchParams(location.search).get("theme");
  try {
    theme ??= localStorage.getItem("gateway.theme");
  } catch {
    // Storage may be forbidden (an iframe, a strict browser): the system's theme it is.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
