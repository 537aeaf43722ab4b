#!/usr/bin/python3
"""Makes the demo's origin out of real music: the three tracks that Debian's frozen-bubble-data ships.

    media.py [--seconds N] OUTPUT      N: only the beginning of each track, for a quick run

OUTPUT is then what a music service keeps behind its CDN:

    /tracks/{track}/{quality}/{n}.ogg     10-second Ogg Vorbis segments, each playable by itself
    /tracks/{track}/master.m3u8           HLS: the qualities to choose from
    /tracks/{track}/{quality}/audio.m3u8  HLS: one quality; init.mp4 and {n}.m4s (fragmented MP4, AAC) beside it
    /covers/{track}.jpg                   a picture of the track's own waveform
    /api/catalogue.json                   what there is, with measured bit rates

The sources are Vorbis at 79 to 106 kbit/s, so encoding them at 160 or 320 kbit/s adds bytes, not quality. Left to
itself libvorbis would notice and spend less (112 kbit/s when asked for 160), so its rate is pinned: what the
demo is to show is the traffic of real qualities. The catalogue holds the rates as measured, and says so.

A finished OUTPUT is kept: it is made again only when the music, this script or the options change.
"""
import argparse
import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

MUSIC = pathlib.Path("/usr/share/games/frozen-bubble/snd")
COPYRIGHT = pathlib.Path("/usr/share/doc/frozen-bubble-data/copyright")
SEGMENT_SECONDS = 10
QUALITIES = (96, 160, 320)  # kbit/s

# The files carry no title tags. These titles say where the game plays them; colours are the covers'.
TRACKS = (
    {"id": "intro", "file": "introzik.ogg", "title": "Intro theme", "colours": ("0x1b1464", "0x12cbc4")},
    {"id": "one-player", "file": "frozen-mainzik-1p.ogg", "title": "One-player theme",
     "colours": ("0x6f1e51", "0xf79f1f")},
    {"id": "two-players", "file": "frozen-mainzik-2p.ogg", "title": "Two-player theme",
     "colours": ("0x0a3d62", "0x38ada9")},
)


running = set()  # Encoders at work, so that an interrupted run need not wait for them.


def run(*command, cwd=None):
    with subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, cwd=cwd) as process:
        running.add(process)
        try:
            out, err = process.communicate()
        finally:
            running.discard(process)
    if process.returncode != 0:
        raise RuntimeError(f"{command[0]} failed ({process.returncode}):\n{err.strip()}")
    return out


def ffmpeg(*arguments, cwd=None):
    run("ffmpeg", "-nostdin", "-v", "error", "-y", *arguments, cwd=cwd)


def probe(path):
    out = run("ffprobe", "-v", "error", "-of", "json", "-show_entries",
              "format=duration,bit_rate:stream=codec_name,sample_rate,channels:format_tags:stream_tags", path)
    return json.loads(out)


def licence():
    """Who made the music and on what terms, in the package's own words."""
    first = COPYRIGHT.read_text(encoding="utf-8").split("Files: debian/*")[0]
    holders = re.search(r"^Copyright:((?:.*\n)(?:[ \t].*\n)*)", first, re.MULTILINE)
    terms = re.search(r"^License: *(\S+)", first, re.MULTILINE)
    if not holders or not terms:
        raise RuntimeError(f"{COPYRIGHT}: cannot tell copyright and licence")
    lines = [re.sub(r"\s*<[^>]*>", "", line).strip() for line in holders.group(1).splitlines()]
    return {"copyright": [line for line in lines if line], "licence": terms.group(1),
            "package": "frozen-bubble-data"}


def sources(seconds):
    return ("-t", seconds) if seconds else ()


def make_ogg(track, quality, tracks, seconds):
    folder = tracks / track["id"] / str(quality)
    rate = f"{quality}k"
    ffmpeg(*sources(seconds), "-i", MUSIC / track["file"], "-map", "0:a", "-map_metadata", "-1", "-c:a", "libvorbis",
           "-b:a", rate, "-minrate", rate, "-maxrate", rate, "-f", "segment", "-segment_time", SEGMENT_SECONDS,
           "-segment_format", "ogg", "-reset_timestamps", "1", "%d.ogg", cwd=folder)


def make_hls(track, quality, tracks, seconds):
    folder = tracks / track["id"] / str(quality)
    ffmpeg(*sources(seconds), "-i", MUSIC / track["file"], "-map", "0:a", "-map_metadata", "-1", "-c:a", "aac",
           "-b:a", f"{quality}k", "-f", "hls", "-hls_time", SEGMENT_SECONDS, "-hls_playlist_type", "vod",
           "-hls_flags", "independent_segments", "-hls_segment_type", "fmp4", "-hls_fmp4_init_filename", "init.mp4",
           "-hls_segment_filename", "%d.m4s", "audio.m3u8", cwd=folder)


def make_cover(track, covers):
    """The waveform in 40 bars on a gradient: drawn 40 pixels wide, enlarged without smoothing, gaps cut out."""
    dark, light = track["colours"]
    bars = ("aformat=channel_layouts=mono,showwavespic=s=40x420:colors=white:scale=lin:filter=peak,format=rgba,"
            "scale=640:420:flags=neighbor,geq=r=255:g=255:b=255:a='0.92*alpha(X,Y)*lt(mod(X,16),10)'")
    ground = "blend=all_expr='A+(B-A)*(X+Y)/1440'"
    ffmpeg("-i", MUSIC / track["file"], "-f", "lavfi", "-i", f"color=c={dark}:s=720x720,format=gbrp", "-f", "lavfi",
           "-i", f"color=c={light}:s=720x720,format=gbrp", "-filter_complex",
           f"[0:a]{bars}[bars];[1:v][2:v]{ground}[ground];[ground][bars]overlay=40:150:format=gbrp",
           "-frames:v", "1", "-q:v", "3", covers / f"{track['id']}.jpg")


def kbit(size_bytes, seconds):
    return round(size_bytes * 8 / seconds / 1000, 1)


def describe_quality(folder, seconds):
    """Bit rates as they came out, of the Ogg segments and of the HLS ones; BANDWIDTH is the peak (RFC 8216, 4.3.4.2)."""
    ogg = sorted(folder.glob("*.ogg"), key=lambda path: int(path.stem))
    durations = [float(value) for value in re.findall(r"#EXTINF:([\d.]+)", (folder / "audio.m3u8").read_text())]
    sizes = [(folder / f"{number}.m4s").stat().st_size for number in range(len(durations))]
    # The last segment may be a fraction of a second long, where headers make the rate look absurd.
    whole = [8 * size / length for size, length in zip(sizes, durations) if length >= SEGMENT_SECONDS / 2]
    return {"quality": int(folder.name), "segments": len(ogg),
            "ogg_kbit": kbit(sum(path.stat().st_size for path in ogg), seconds),
            "aac_kbit": kbit(sum(sizes), sum(durations)),
            "bandwidth": round(max(whole)), "average_bandwidth": round(8 * sum(sizes) / sum(durations))}


def write_master(track, tracks, qualities):
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS"]
    for entry in qualities:
        lines += [f"#EXT-X-STREAM-INF:BANDWIDTH={entry['bandwidth']},"
                  f"AVERAGE-BANDWIDTH={entry['average_bandwidth']},CODECS=\"mp4a.40.2\"",
                  f"{entry['quality']}/audio.m3u8"]
    (tracks / track["id"] / "master.m3u8").write_text("\n".join(lines) + "\n")


def describe_track(track, tracks, seconds):
    found = probe(MUSIC / track["file"])
    length = float(found["format"]["duration"])
    made = min(length, seconds) if seconds else length
    qualities = [describe_quality(tracks / track["id"] / str(quality), made) for quality in QUALITIES]
    write_master(track, tracks, qualities)
    return {"id": track["id"], "title": track["title"], "source": track["file"], "seconds": round(made, 2),
            "source_kbit": kbit(int(found["format"]["bit_rate"]) / 8, 1), "cover": f"/covers/{track['id']}.jpg",
            "qualities": [{key: value for key, value in entry.items() if "bandwidth" not in key}
                          for entry in qualities]}


def make(output, seconds):
    tracks, covers, api = output / "tracks", output / "covers", output / "api"
    for folder in [covers, api] + [tracks / track["id"] / str(quality) for track in TRACKS for quality in QUALITIES]:
        folder.mkdir(parents=True)
    # The longest jobs first, so that the processors finish together.
    jobs = [(make_ogg, track, quality, tracks, seconds) for track in TRACKS for quality in QUALITIES]
    jobs += [(make_hls, track, quality, tracks, seconds) for track in TRACKS for quality in QUALITIES]
    jobs += [(make_cover, track, covers) for track in TRACKS]
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        pending = [pool.submit(*job) for job in jobs]
        try:
            for count, job in enumerate(concurrent.futures.as_completed(pending), 1):
                job.result()
                progress(count, len(jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.kill()
            raise
    catalogue = {"tracks": [describe_track(track, tracks, seconds) for track in TRACKS],
                 "segment_seconds": SEGMENT_SECONDS, **licence()}
    (api / "catalogue.json").write_text(json.dumps(catalogue, indent=1) + "\n")


def progress(count, total):
    if sys.stderr.isatty():
        print(f"\r  cutting real music into segments: {count}/{total}", end="\n" if count == total else "",
              file=sys.stderr, flush=True)


def stamp(seconds):
    """Changes when anything does that OUTPUT is made from."""
    state = hashlib.sha256(pathlib.Path(__file__).read_bytes())
    for track in TRACKS:
        if not (MUSIC / track["file"]).is_file():
            raise RuntimeError(f"{MUSIC / track['file']} is not there; run packaging/install-deps.sh demo")
        info = (MUSIC / track["file"]).stat()
        state.update(f"{track['file']} {info.st_size} {info.st_mtime_ns}".encode())
    state.update(f"{seconds}".encode())
    return state.hexdigest() + "\n"


@contextlib.contextmanager
def locked(path):
    """Two demos started at once make a thing once."""
    with open(f"{path}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ensure(output, seconds=None):
    """Returns OUTPUT's catalogue, after making OUTPUT if it is not there or no longer true."""
    output = pathlib.Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    stamp_file = output / "stamp"
    with locked(output):
        wanted = stamp(seconds)
        if not stamp_file.is_file() or stamp_file.read_text() != wanted:
            # Made beside and moved into place whole, so that one interrupted never looks finished.
            partial = pathlib.Path(f"{output}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            make(partial, seconds)
            (partial / "stamp").write_text(wanted)
            shutil.rmtree(output, ignore_errors=True)
            partial.rename(output)
    return json.loads((output / "api" / "catalogue.json").read_text())


def main():
    parser = argparse.ArgumentParser(description="Makes the demo's origin out of real music.")
    parser.add_argument("--seconds", type=int, help="only the beginning of each track")
    parser.add_argument("output", type=pathlib.Path)
    options = parser.parse_args()
    try:
        catalogue = ensure(options.output, options.seconds)
    except (RuntimeError, OSError) as error:
        sys.exit(f"media: {error}")
    for track in catalogue["tracks"]:
        rates = ", ".join(f"{entry['quality']}: {entry['ogg_kbit']:.0f} ogg {entry['aac_kbit']:.0f} aac"
                          for entry in track["qualities"])
        print(f"{track['id']:12} {track['seconds']:6.1f} s, source {track['source_kbit']:.0f} kbit/s; {rates}")


if __name__ == "__main__":
    main()
