/* Figures: their dark versions follow the page's own switch, and each can be opened large. */
(() => {
    // Without this script the reader's setting for all pages decides.
    const follow = () => {
        const dark = document.documentElement.dataset.theme === "dark";
        for (const source of document.querySelectorAll("source[data-dark]")) {
            const media = dark ? source.dataset.dark : "not all";
            if (source.media !== media) source.media = media;
        }
    };
    const watch = new MutationObserver(follow);
    watch.observe(document, {childList: true, subtree: true}); // so that no wrong version is loaded

    const makeDialog = () => {
        const dialog = document.createElement("dialog");
        const close = document.createElement("button");
        const shown = document.createElement("div");
        dialog.id = "enlarged";
        close.type = "button";
        close.textContent = "Close";
        close.addEventListener("click", () => dialog.close());
        shown.tabIndex = 0; // so that the keyboard can scroll it
        shown.setAttribute("role", "group");
        dialog.append(close, shown);
        dialog.addEventListener("click", event => event.target === dialog && dialog.close());
        document.body.append(dialog);
        return (figure, name) => {
            const picture = figure.querySelector("picture").cloneNode(true);
            for (const source of picture.querySelectorAll("source"))
                if (source.srcset.includes("-narrow.png")) source.remove();
            picture.querySelector("img").loading = "eager";
            const caption = document.createElement("p");
            caption.textContent = figure.querySelector("figcaption").innerText.replace(/#\s*$/, "");
            for (const element of [dialog, shown]) element.setAttribute("aria-label", name);
            shown.replaceChildren(picture, caption);
            follow();
            dialog.showModal();
        };
    };

    document.addEventListener("DOMContentLoaded", () => {
        watch.disconnect();
        watch.observe(document.documentElement, {attributeFilter: ["data-theme"]});
        follow();
        const figures = document.querySelectorAll(".bd-article figure:has(picture)");
        const enlarge = figures.length ? makeDialog() : null;
        for (const figure of figures) {
            const name = figure.querySelector("figcaption strong").textContent.replace(/\.$/, "");
            const button = document.createElement("button");
            button.type = "button";
            button.className = "enlarge";
            button.title = `Enlarge ${name}`;
            button.setAttribute("aria-label", button.title);
            const open = () => enlarge(figure, name);
            button.addEventListener("click", open);
            figure.querySelector("picture").addEventListener("click", open);
            figure.append(button);
        }
    });
})();
