#!/usr/bin/env bash
# The `recstore` command beside the shells of SQLite and LMDB: a million rows in, out, listed and searched.
# Prints a table of seconds: elapsed, and of the processors. Needs sqlite3 and lmdb-utils (Debian's names).
# cargo build --release --features cli && benches/command.sh [ROWS] [ROUNDS]
set -euo pipefail
rows=${1:-1000000} rounds=${2:-3}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
recstore=${RECSTORE:-${CARGO_TARGET_DIR:-$root/target}/release/recstore}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

# Ids in no order, and 64 bytes of text, the same in each run; for LMDB in the form that mdb_dump -p gives.
awk -v rows="$rows" 'BEGIN {
    srand(7); print "id,data"
    for (n = 0; n < rows; n++) {
        text = ""
        for (w = 0; w < 8; w++) text = text sprintf("%08x", int(rand() * 4294967296))
        printf "%d,%s\n", (n * 7919) % 1000003 + 1000003 * int(n / 1000003), text
    }
}' >rows.csv
{
    printf 'VERSION=3\nformat=print\ntype=btree\nmapsize=4294967296\nHEADER=END\n'
    awk -F, 'NR > 1 { printf " %010d\n %s\n", $1, $2 }' rows.csv
    echo DATA=END
} >rows.mdb

# measure NAME COMMAND...: one line for the table, the medians of the rounds. What `fresh` names is removed before each.
fresh=""
measure() {
    local name=$1 elapsed=() cpu=() round TIMEFORMAT='%R %U %S' times
    shift
    for ((round = 0; round < rounds; round++)); do
        [ -z "$fresh" ] || rm -rf $fresh
        sync
        times=$({ time "$@" >out 2>err; } 2>&1) || { cat err >&2; echo "failed: $*" >&2; return 1; }
        set -- "$@"
        read -r e u s <<<"$(tail -n 1 <<<"$times")"
        elapsed+=("$e")
        cpu+=("$(awk -v u="$u" -v s="$s" 'BEGIN { print u + s }')")
    done
    local middle=$((rounds / 2 + 1))
    printf '| %s | %.2f | %.2f |\n' "$name" \
        "$(printf '%s\n' "${elapsed[@]}" | sort -n | sed -n "${middle}p")" \
        "$(printf '%s\n' "${cpu[@]}" | sort -n | sed -n "${middle}p")"
}

sqlite_import() {
    sqlite3 t.db 'CREATE TABLE t (id INTEGER PRIMARY KEY, data TEXT)' '.mode csv' '.import --skip 1 rows.csv t'
}
mdb_import() { mkdir t.lmdb && mdb_load -f rows.mdb t.lmdb; }

echo "| $rows rows | elapsed, s | processors, s |"
echo "| --- | ---: | ---: |"
recstore_load() {
    "$recstore" create t.rec --record-size 64 && "$recstore" load t.rec rows.csv --format csv --data-column data "$@"
}

fresh=t.rec
measure 'load: `recstore load --format csv`, 2 writers' recstore_load --writers 2
measure 'load: `recstore load --format csv`' recstore_load
fresh=t.db
measure 'load: `sqlite3`, `.import`' sqlite_import
fresh=t.lmdb
measure 'load: `mdb_load`' mdb_import
fresh=""
measure 'dump: `recstore dump`, JSON lines' "$recstore" dump t.rec
measure 'dump: `recstore export --format csv`, by id' "$recstore" export t.rec --format csv
measure 'dump: `sqlite3 -csv`, by id' sqlite3 -csv t.db 'SELECT * FROM t'
measure 'dump: `sqlite3 -json`, by id' sqlite3 -json t.db 'SELECT * FROM t'
measure 'dump: `mdb_dump -p`' mdb_dump -p t.lmdb
measure 'list: `recstore list`' "$recstore" list t.rec
measure 'list: `recstore list --sort id`' "$recstore" list t.rec --sort id
measure 'list: `sqlite3`, id, length, 48 characters' sqlite3 t.db 'SELECT id, length(data), substr(data, 1, 48) FROM t'
measure 'search: `recstore count --match abcd`' "$recstore" count t.rec --match abcd
measure 'search: `sqlite3`, `LIKE`' sqlite3 t.db "SELECT count(*) FROM t WHERE data LIKE '%abcd%'"
echo
echo "bytes: rows.csv $(stat -c %s rows.csv), t.rec $(du -B1 t.rec | cut -f1), t.db $(du -B1 t.db | cut -f1), t.lmdb $(du -B1 t.lmdb/data.mdb | cut -f1)"
