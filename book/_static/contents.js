/* Marks in the page's contents where the reader is. The theme does so when a heading comes by, but
   not after a jump into the middle of a section, and does not move a list that is longer than the
   screen. */
document.addEventListener("DOMContentLoaded", () => {
    const links = [...document.querySelectorAll(".bd-sidebar-secondary .page-toc a[href^='#']")];
    const headings = links.map(link => {
        const section = document.getElementById(decodeURIComponent(link.hash.slice(1)));
        return section.querySelector(":is(h1, h2, h3, h4)") ?? section;
    });
    let timer;

    const mark = () => {
        const passed = heading => heading.getBoundingClientRect().top <= 0.3 * innerHeight;
        const atEnd = scrollY + innerHeight >= document.documentElement.scrollHeight - 2;
        const here = links[atEnd ? links.length - 1 : headings.findLastIndex(passed)];
        for (const link of links) {
            link.classList.toggle("active", link === here);
            if (link === here) link.setAttribute("aria-current", "true");
            else link.removeAttribute("aria-current");
        }
        const list = document.querySelector(".bd-sidebar-secondary");
        if (here && list.scrollHeight > list.clientHeight)
            list.scrollTop = here.offsetTop - list.clientHeight / 2;
    };
    // At once, and again when the theme has had its turn.
    const soon = () => {
        requestAnimationFrame(mark);
        clearTimeout(timer);
        timer = setTimeout(mark, 100);
    };

    if (links.length) {
        addEventListener("scroll", soon, {passive: true});
        addEventListener("resize", soon);
        soon();
    }
});
