/* Shows what a link leads to (a source, a word, a figure's caption) while a reader points at it or
   reaches it with the keyboard. The text is the link's title, which browsers show to mice alone. */
(() => {
    const tip = document.createElement("div");
    tip.id = "preview";
    tip.setAttribute("role", "tooltip");
    tip.hidden = true;
    let shown = null;

    const show = link => {
        shown = link;
        tip.textContent = link.dataset.preview;
        tip.hidden = false;
        const at = link.getClientRects()[0];
        const left = Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
        const below = at.bottom + 6 + tip.offsetHeight < innerHeight;
        tip.style.left = `${Math.max(8, left) + scrollX}px`;
        tip.style.top = `${(below ? at.bottom + 6 : at.top - 6 - tip.offsetHeight) + scrollY}px`;
    };
    const hide = () => {
        shown = null;
        tip.hidden = true;
    };
    // A reader may move from the link onto the preview, to read or to copy it.
    const hideSoon = () => setTimeout(() => {
        if (shown && !shown.matches(":hover, :focus") && !tip.matches(":hover")) hide();
    }, 150);

    document.addEventListener("DOMContentLoaded", () => {
        document.body.append(tip);
        for (const link of document.querySelectorAll(".bd-article a.has-preview")) {
            link.dataset.preview = link.title;
            link.removeAttribute("title");
            link.setAttribute("aria-describedby", "preview");
            link.addEventListener("mouseenter", () => show(link));
            link.addEventListener("focus", () => show(link));
            link.addEventListener("mouseleave", hideSoon);
            link.addEventListener("blur", hideSoon);
        }
        tip.addEventListener("mouseleave", hideSoon);
        document.addEventListener("keydown", event => event.key === "Escape" && hide());
    });
})();
