# Makes figures of what the virtual machines reported: raw text in, an array of objects out.

def hex: explode | reduce .[] as $digit (0; . * 16 + (if $digit > 57 then $digit - 87 else $digit - 48 end));

# Rounded, because a virtual clock shows more digits than mean something.
def rounded: . * 1000 | round | . / 1000;

def summary($figure; $monitor; $condition; $unit):
    sort
    | { figure: $figure, monitor: $monitor, condition: $condition, unit: $unit,
        median: ((.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2 | rounded),
        min: (.[0] | rounded), max: (.[-1] | rounded), runs: length };

def one($figure; $monitor; $condition; $unit): [.] | summary($figure; $monitor; $condition; $unit);

def reports: [split("\n")[] | rtrimstr("\r")
    | capture("^(?<figure>[a-z]+) (?<condition>[^ ]+) (?<data>[{].*)$")?
    | .data |= fromjson
    | .monitor = (.condition | split(",")[0])
    | .detail = (.condition | split(",")[1])];

def starts: map(select(.figure == "start")) | group_by([.monitor, .detail])[]
    | .[0] as $first
    | (map(.data.line_ms) | summary("start to /init"; $first.monitor; $first.detail; "ms")),
      (map(.data.exit_ms) | summary("start to exit"; $first.monitor; $first.detail; "ms")),
      (map(.data.line | capture("uptime=(?<uptime>[0-9.]+)").uptime | tonumber * 1000)
        | summary("guest uptime at /init"; $first.monitor; $first.detail; "ms"));

def memories: (.[] | select(.figure == "memory"))
    as $report
    | ($report.data.memory.rss_kib / 10.24 | round / 100)
    | one("memory beyond the guest"; $report.monitor; $report.detail; "MiB");

def densities: (.[] | select(.figure == "density"))
    as $report
    | ($report.data.memory.pss_kib / 10.24 | round / 100)
    | one("memory beyond each guest"; $report.monitor; $report.detail + " guests"; "MiB");

def firmwares: (.[] | select(.figure == "firmware"))
    as $report
    | $report.data.line_ms
    | one("start to /init by firmware"; $report.monitor; $report.detail; "ms");

def restores: map(select(.figure == "restore")) | group_by(.monitor)[]
    | .[0].monitor as $monitor
    | (map(.data.line_ms) | summary("restore to first answer"; $monitor; "reference"; "ms")),
      (map(.data.memory.private_dirty_kib / 1024) | summary("own memory after it, guest not counted"; $monitor; "reference"; "MiB"));

# Several guests, started one right after the other, until the last has said its line.
def many($figure; $name): (.[] | select(.figure == $figure))
    as $report
    | ($report.detail | tonumber | . * 1000 / $report.data.line_ms)
    | one($name; $report.monitor; $report.detail + " guests"; "1/s");

def rates: many("rate"; "guests started"), many("clones"; "guests restored");

# Cycles of both loops of a bare guest, less those of the loop without what is measured, for each round. One cycle of the
# virtual processor's counter is a nanosecond.
def cycles($figure; $with; $without; $rounds; $name; $condition):
    map(select(.figure == $figure)) | group_by(.monitor)[]
    | (map({ (.detail): (.data.line | capture("cycles=(?<digits>[0-9a-f]+)").digits | hex) }) | add)
      as $cycles
    | .[0].monitor as $monitor
    | (($cycles[$with] - $cycles[$without]) / $rounds / 1000)
    | one($name; $monitor; $condition; "us");

def exits:
    cycles("exit"; "exit-cycles"; "loop-cycles"; 10000; "exit to user space"; "in from a device register"),
    cycles("interrupt"; "interrupt-cycles"; "masked-cycles"; 5000; "interrupt"; "of a device in user space, acknowledged");

# The pairs NAME=NUMBER of a line.
def pairs: [scan("([a-z0-9-]+)=([0-9.]+)") | { name: .[0], value: (.[1] | tonumber) }];

def disks: (.[] | select(.figure == "disk"))
    as $report
    | $report.data.line | pairs[]
    | .name as $name
    | (1e6 / .value)
    | one("disk, time for 4 KiB"; $report.monitor; $name; "us");

def imports: (.[] | select(.figure == "import"))
    as $report
    | (($report.data.line | capture("bytes=(?<bytes>[0-9]+)").bytes | tonumber) / $report.data.line_ms / 1000)
    | one("import, of the raw disk"; $report.monitor; $report.detail; "MB/s");

def nets: (.[] | select(.figure == "net"))
    as $report
    | $report.data.line | pairs[]
    | .name as $name
    | .value
    | if $name == "round-trip" then one("network round trip"; $report.monitor; $report.detail; "us")
      else one("network rate"; $report.monitor; $name + " " + $report.detail; "Mbit/s") end;

def api: .[] | select(.figure == "api")
    | .condition as $request | .data
    | (.p50_us | one("API p50"; "lodge"; $request; "us")), (.p99_us | one("API p99"; "lodge"; $request; "us"));

# Seconds since the kernel's clock began, of the first line of the log that matches.
def at($log; $pattern): first($log[] | select(.text | test($pattern))).time;

def log: [split("\n")[] | capture("^LOG \\[ *(?<time>[0-9.]+)\\] (?<text>.*)$")? | .time |= tonumber];

def ready: log as $log
    | if ($log | length) == 0 then empty else
        at($log; "^bench: api cycles=") as $api
        | (first($log[].text | capture("^bench: api cycles=(?<cycles>[0-9]+)")?).cycles | tonumber / 1e9) as $power
        | at($log; "Run /bench/init as init process") as $init
        | at($log; "^lodge-init: Lodge ") as $lodge
        | at($log; "^lodge-init: lodge is up") as $up
        | at($log; "^lodge-serve: the API listens") as $listens
        | ($power | one("power-on to API ready"; "lodge"; "ISO, BIOS, CD"; "s")),
          ($api | one("kernel start to API ready"; "lodge"; "ISO, BIOS, CD"; "s")),
          (($power - $api) | one("- firmware and boot loader"; "lodge"; "ISO, BIOS, CD"; "s")),
          ($init | one("- kernel"; "lodge"; "to its first process"; "s")),
          (($lodge - $init) | one("- bench"; "lodge"; "its own first process"; "s")),
          (($up - $lodge) | one("- lodge init"; "lodge"; "to all started"; "s")),
          (($listens - $up) | one("- lodge serve"; "lodge"; "to listening"; "s")),
          (($api - $listens) | one("- first answer"; "lodge"; "TLS and GET /v1"; "s"))
      end;

. as $text | reports as $reports
| [$reports | starts, firmwares, restores, rates, memories, densities, exits, disks, imports, nets]
  + [$text | ready] + [$reports | api]
