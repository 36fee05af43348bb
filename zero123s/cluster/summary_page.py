"""OUT/index.html: the results of a batch, with images and numbers, in one page that links to the files."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from zero123s.cluster.worker import FOLDER
from zero123s.runtime.files import write_text

STYLE = """body{font:14px system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse}
td,th{padding:4px 10px;border-bottom:1px solid #ddd;text-align:left;vertical-align:middle}
th{cursor:pointer;position:sticky;top:0;background:#fff}td.number{text-align:right;font-variant-numeric:tabular-nums}
img{height:96px;background:#f4f4f4}.failed,.timed{color:#b00020}"""
SORT = """for(const [i,h] of document.querySelectorAll("th").entries())h.onclick=()=>{
const b=document.querySelector("tbody"),v=r=>r.cells[i].dataset.v??r.cells[i].textContent;
const d=h.dataset.d=h.dataset.d==="1"?"-1":"1";
[...b.rows].sort((p,q)=>d*v(p).localeCompare(v(q),undefined,{numeric:true})).forEach(r=>b.append(r))}"""
DOWNLOADS = ("glb", "obj", "ply", "stl", "usdz", "3mf", "turntable")


def write_page(out: Path, records: Sequence[Mapping[str, Any]], summary: str) -> Path:
    """Write the page and return its path; raises OutputError.

    Args:
        records: one per item, in order; items that have not run yet have the state "waiting".
        summary: one line above the table.
    """
    names = sorted({name for r in records for name in r.get("metrics") or {}})
    heads = ["image", "mesh", "name", "state", "seconds", "attempts", *names, "files"]
    body = "".join(_row(r, names) for r in records)
    path = out / "index.html"
    write_text(
        path,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(out.name)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(out.name)}</h1><p>{escape(summary)}</p><table><thead><tr>"
        f"{''.join(f'<th>{escape(h)}</th>' for h in heads)}</tr></thead><tbody>{body}</tbody></table>"
        f"<script>{SORT}</script></body></html>\n",
    )
    return path


def _row(r: Mapping[str, Any], names: Sequence[str]) -> str:
    folder = f"{FOLDER}/{quote(str(r['name']))}"
    files = r.get("files") or {}
    cells = [
        _thumbnail(f"{folder}/thumbnail.png") if r["state"] != "waiting" else "",
        _thumbnail(f"{folder}/{quote(str(files['poster']))}") if "poster" in files else "",
        f'<a href="{folder}/">{escape(str(r["name"]))}</a>',
        f'<span class="{escape(str(r["state"]))}">{escape(str(r["state"]))}</span> {escape(str(r.get("error") or ""))}',
    ]
    numbers = [r.get("seconds"), r.get("attempts"), *((r.get("metrics") or {}).get(name) for name in names)]
    links = " ".join(f'<a href="{folder}/{quote(str(files[k]))}">{k}</a>' for k in DOWNLOADS if k in files)
    tds = "".join(f"<td>{c}</td>" for c in cells) + "".join(_number(n) for n in numbers)
    return f"<tr>{tds}<td>{links}</td></tr>"


def _thumbnail(source: str) -> str:
    return f'<img loading="lazy" alt="" src="{source}">'


def _number(value: Any) -> str:
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return f'<td class="number" data-v="{"" if value is None else value}">{text}</td>'
