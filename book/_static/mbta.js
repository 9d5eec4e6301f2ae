/* Small repairs to the theme: what a control is called has to hold the words that it shows. */
document.addEventListener("DOMContentLoaded", () => {
  for (const control of document.querySelectorAll(".search-button-field, details.hide > summary")) {
    control.removeAttribute("aria-label");
  }
  for (const control of document.querySelectorAll(".theme-switch-button")) {
    control.setAttribute("aria-label", "Color mode: Light, Dark, System Settings");
  }
});
