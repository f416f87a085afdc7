#!/usr/bin/env bash
# Installs Guantong from this folder, without a network. `install.sh --help` says the rest.
# 离线安装贯通。用法：install.sh --help
set -euo pipefail
umask 022
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
UNITS_TO=/etc/systemd/system
SYSUSERS_TO=/usr/lib/sysusers.d
UNITS=(guantong guantong-collect guantong-ingest guantong-serve)

language=en
case "${LC_ALL:-${LC_MESSAGES:-${LANG:-}}}" in zh*) language=zh ;; esac

say() { # English, Chinese
  if [[ $language == zh ]]; then printf '%s\n' "$2"; else printf '%s\n' "$1"; fi
}
fail() { # English, Chinese, exit code
  say "install.sh: $1" "install.sh：$2" >&2
  exit "${3:-1}"
}

usage() {
  say "Usage: install.sh [OPTIONS]

Installs Guantong, or upgrades what is there. Configuration and data are never touched.
As root: for the whole machine, with systemd units and a user of its own. As anybody else: for that user alone.

  --prefix DIR    where to install (as root /opt/guantong, else ~/.local/share/guantong)
  --user          for the one who calls, also as root: no units, no system user; configuration and data below the prefix
  --python FILE   the Python to use; else the newest one in PATH that this archive has packages for
  --rollback      back to the version before the last upgrade
  --uninstall     remove the program; configuration and data stay
  --lang en|zh    language of the messages; the terminal's by default
  --help          this text

Exit codes: 0 done, 1 not done (nothing was changed, unless a message says otherwise), 2 wrong options." \
    "用法：install.sh [选项]

安装贯通，或升级已安装的版本。不会改动配置和数据。
以 root 运行：为整机安装，包括 systemd 服务和专用用户。以其他用户运行：只为该用户安装。

  --prefix 目录   安装位置（root 默认 /opt/guantong，其他用户默认 ~/.local/share/guantong）
  --user          只为当前用户安装（root 也可用）：不装服务，不建用户；配置和数据放在安装目录下
  --python 文件   使用指定的 Python；不指定则从 PATH 中选本安装包支持的最新版本
  --rollback      回退到上次升级之前的版本
  --uninstall     卸载程序；保留配置和数据
  --lang en|zh    消息语言；默认跟随终端
  --help          显示本说明

退出码：0 完成，1 未完成（除非另有说明，未做任何改动），2 选项有误。"
}

# --- options ----------------------------------------------------------------------------------------------------------

prefix='' python='' action=install mode='' new=''
while (($# > 0)); do
  case $1 in
    --prefix | --python | --lang)
      (($# > 1)) || fail "$1 needs a value; see --help" "$1 需要一个值，见 --help" 2
      case $1 in
        --prefix) prefix=$2 ;;
        --python) python=$2 ;;
        --lang)
          [[ $2 == en || $2 == zh ]] || fail "--lang $2: write en or zh" "--lang $2：请写 en 或 zh" 2
          language=$2
          ;;
      esac
      shift
      ;;
    --user) mode=user ;;
    --rollback) action=rollback ;;
    --uninstall) action=uninstall ;;
    --help | -h)
      usage
      exit 0
      ;;
    *) fail "unknown option $1; see --help" "未知选项 $1，见 --help" 2 ;;
  esac
  shift
done

# the copy that an installation keeps of this script knows where it belongs
if [[ -z $prefix && -f $HERE/installed ]]; then
  prefix=$HERE
fi
if [[ -z $mode && -n $prefix && -f $prefix/installed ]]; then
  mode=$(< "$prefix/installed")
fi
if [[ -z $mode ]]; then
  mode=user
  [[ $(id -u) != 0 ]] || mode=system
fi
if [[ $mode == system && $(id -u) != 0 ]]; then
  fail "this is an installation for the whole machine: run it as root, or choose --user with another --prefix" \
    "这是整机安装：请以 root 运行，或用 --user 加其他 --prefix"
fi
if [[ -z $prefix ]]; then
  if [[ $mode == system ]]; then
    prefix=/opt/guantong
  else
    prefix=${XDG_DATA_HOME:-${HOME:?}/.local/share}/guantong
  fi
fi
prefix=$(realpath -m -- "$prefix")
# it stands in units and in the first lines of scripts, which have no quotes
[[ $prefix =~ ^/[A-Za-z0-9._/+@-]+$ ]] \
  || fail "--prefix $prefix: only letters, digits and . _ + @ - / may stand in it" \
    "--prefix $prefix：路径只能含字母、数字和 . _ + @ - /" 2

if [[ $mode == system ]]; then
  config=/etc/guantong/guantong.yaml
  data=/var/lib/guantong
else
  config=$prefix/guantong.yaml
  data=$prefix/var
fi

# --- the parts --------------------------------------------------------------------------------------------------------

systemd_runs() { [[ $mode == system && -d /run/systemd/system ]]; }

active_units() {
  local unit
  systemd_runs || return 0
  for unit in "${UNITS[@]}"; do
    if systemctl is-active --quiet "$unit.service"; then printf '%s\n' "$unit.service"; fi
  done
}

point() { # name of a link in the prefix, target: in one step, so that there is never none
  ln -sfn "$2" "$prefix/.$1.new"
  mv -Tf "$prefix/.$1.new" "$prefix/$1"
}

restart() { # units that ran before
  local unit
  (($# > 0)) || return 0
  systemctl restart "$@"
  for unit in "$@"; do
    # a configuration that it refuses ends it within a second or two
    for _ in 1 2 3 4 5; do
      sleep 1
      systemctl is-active --quiet "$unit" || {
        say "$unit does not run; its log: journalctl --unit $unit. Back to the version before: $prefix/install.sh --rollback" \
          "$unit 未能运行；日志：journalctl --unit $unit。回退到之前的版本：$prefix/install.sh --rollback" >&2
        return 1
      }
    done
  done
}

value() { # key of the file BUNDLE
  sed -n "s/^$1=//p" "$HERE/BUNDLE"
}

check_archive() {
  [[ -f $HERE/BUNDLE && -f $HERE/SHA256SUMS ]] \
    || fail "$HERE is not an unpacked archive of Guantong: BUNDLE or SHA256SUMS is missing" \
      "$HERE 不是解压后的贯通安装包：缺少 BUNDLE 或 SHA256SUMS"
  say "Checking the files of the archive" "校验安装包文件"
  local wrong
  wrong=$(cd "$HERE" && sha256sum --check --quiet SHA256SUMS 2>&1) || {
    printf '%s\n' "$wrong" >&2
    fail "the archive is damaged; copy it again and compare its SHA-256" "安装包已损坏；请重新复制并核对 SHA-256"
  }
}

look_at() { # a Python: prints "VERSION MACHINE BITS LIBC", or nothing
  "$1" -I -c 'import os, platform, struct, sys
libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
print("%d.%d" % sys.version_info[:2], platform.machine(), 8 * struct.calcsize("P"), (libc or "glibc none").split()[1],
      platform.python_implementation())' 2> /dev/null || true
}

choose_python() {
  local pythons candidate found version list=()
  pythons=$(value pythons)
  if [[ -n $python ]]; then
    candidate=$(command -v "$python") || fail "--python $python is not a program" "--python $python 不是可执行程序"
    list=("$candidate")
  else
    for version in $(tr ' ' '\n' <<< "$pythons" | sort -rV); do list+=("python$version"); done
    list+=(python3)
  fi
  local seen=''
  for candidate in "${list[@]}"; do
    candidate=$(command -v "$candidate") || continue
    found=$(look_at "$candidate")
    [[ -n $found ]] || continue
    read -r version machine bits libc kind <<< "$found"
    seen+=" $candidate ($kind $version)"
    if [[ " $pythons " == *" $version "* && $kind == CPython ]]; then
      python=$candidate
      return 0
    fi
  done
  fail "no Python that this archive has packages for. It has them for: $pythons. Found:${seen:- none}. Debian 12 and 13 have one on their installation medium: apt install python3; name another with --python" \
    "没有可用的 Python。本安装包支持：$pythons；找到：${seen:- 无}。Debian 12/13 的安装介质自带：apt install python3；也可用 --python 指定"
}

check_machine() {
  local machines wanted
  machines=$(value machines)
  case $machine in arm64) machine=aarch64 ;; amd64) machine=x86_64 ;; esac
  if [[ $bits != 64 ]]; then
    fail "$python is a $bits-bit program; the packages need a 64-bit system" "$python 是 $bits 位程序；需要 64 位系统"
  fi
  [[ " $machines " == *" $machine "* ]] \
    || fail "this machine is $machine; this archive has packages for: $machines" "本机架构为 $machine；本安装包支持：$machines"
  wanted=$(value glibc)
  if [[ $libc == none || $(printf '%s\n' "$wanted" "$libc" | sort -V | head -n 1) != "$wanted" ]]; then
    fail "the C library here is ${libc/none/not glibc}; glibc $wanted or later is needed (Debian 10, Ubuntu 20.04, openEuler 20.03 have it)" \
      "本机 C 库为 ${libc/none/非 glibc}；需要 glibc $wanted 以上（Debian 10、Ubuntu 20.04、openEuler 20.03 起均可）"
  fi
  "$python" -I -c 'import venv, ssl, sqlite3' 2> /dev/null \
    || fail "$python lacks venv, ssl or sqlite3; on Debian: apt install python3 python3-venv" \
      "$python 缺少 venv、ssl 或 sqlite3；Debian 上：apt install python3 python3-venv"
}

check_place() {
  local parent free needed=400
  if [[ -e $prefix/bin && ! -L $prefix/bin ]]; then
    fail "$prefix holds something that this script did not install; move it away (mv $prefix $prefix.old) or choose another --prefix" \
      "$prefix 中已有不是由本脚本安装的内容；请先移走（mv $prefix $prefix.old）或换用 --prefix"
  fi
  parent=$prefix
  while [[ ! -d $parent ]]; do parent=$(dirname "$parent"); done
  [[ -w $parent ]] || fail "$parent cannot be written; run as root or choose another --prefix" \
    "$parent 不可写；请以 root 运行或换用 --prefix"
  free=$(df -Pm "$parent" | awk 'NR == 2 { print $4 }')
  ((free >= needed)) || fail "$parent has $free MB free; $needed MB are needed" "$parent 剩余 $free MB；需要 $needed MB"
}

build_environment() { # folder of the new version: everything that pip might ask elsewhere is cut
  local pip=("$HERE"/pip/pip-*.whl)
  say "Installing $(value version) with $python into $1" "用 $python 安装 $(value version) 到 $1"
  # without ensurepip, which Debian's python3 lacks; pip runs from its wheel
  "$python" -I -m venv --without-pip "$1"
  PIP_CONFIG_FILE=/dev/null "$1/bin/python" -I "${pip[0]}/pip" --isolated --disable-pip-version-check install \
    --quiet --no-input --no-cache-dir --root-user-action ignore \
    --no-index --find-links "$HERE/wheels" --find-links "$HERE/pip" --require-hashes --only-binary :all: \
    --requirement "$HERE/requirements.txt" \
    || fail "pip could not install the packages; the lines above say why. Nothing was changed" \
      "pip 未能安装软件包，原因见上。未做任何改动"
  "$1/bin/guantong" version > /dev/null
}

copy_unit() { # file, folder
  sed "s#/opt/guantong/#$prefix/#g" "$1" > "$2/$(basename "$1")"
  chmod 0644 "$2/$(basename "$1")"
}

prepare_machine() { # user, folders, first configuration, units
  local unit
  if ! getent passwd guantong > /dev/null; then
    say "Creating the user guantong" "创建用户 guantong"
    mkdir -p "$SYSUSERS_TO"
    install -m 0644 "$HERE/systemd/guantong.sysusers" "$SYSUSERS_TO/guantong.conf"
    if command -v systemd-sysusers > /dev/null; then
      systemd-sysusers guantong.conf
    else
      useradd --system --user-group --no-create-home --home-dir "$data" --shell /usr/sbin/nologin guantong
    fi
  fi
  # a Python below /root, say, is out of reach for the user that the units run as
  runuser -u guantong -- "$prefix/$new/bin/python" -I -c '' 2> /dev/null \
    || fail "the user guantong cannot run $python or what was installed in $prefix: a folder on the way is closed to others. Choose another --python or --prefix" \
      "用户 guantong 无法运行 $python 或 $prefix 中的程序：路径上有目录不对其他用户开放。请换用 --python 或 --prefix"
  install -d -m 0750 -g guantong /etc/guantong
  [[ -d $data ]] || install -d -m 0750 -o guantong -g guantong "$data"
  if [[ ! -e $config ]]; then
    install -m 0640 -g guantong "$HERE/guantong.yaml" "$config"
    say "Wrote $config to begin with" "已生成初始配置 $config"
  fi
  mkdir -p "$UNITS_TO"
  for unit in "$HERE"/systemd/*.service; do copy_unit "$unit" "$UNITS_TO"; done
  if systemd_runs; then systemctl daemon-reload; fi
}

prepare_user() {
  mkdir -p "$data"
  if [[ ! -e $config ]]; then
    install -m 0640 "$HERE/guantong.yaml" "$config"
    say "Wrote $config to begin with" "已生成初始配置 $config"
  fi
}

doctor() {
  local as=()
  say "" ""
  say "guantong doctor looks at this machine:" "guantong doctor 检查本机："
  if [[ $mode == system ]]; then as=(runuser -u guantong --); fi
  # `fail` lines concern the machine or the configuration: the installation itself is done
  (cd / && "${as[@]}" env GUANTONG_DATA_DIR="$data" "$prefix/bin/guantong" doctor --config "$config") || true
}

next_steps() {
  local guantong=$prefix/bin/guantong
  say "" ""
  if [[ $mode == system ]]; then
    say "Next: edit $config, then
  $guantong check --config $config
  systemctl enable --now guantong.service
To try it without a machine: $guantong demo --dir ~/guantong-demo" \
      "下一步：编辑 $config，然后
  $guantong check --config $config
  systemctl enable --now guantong.service
没有设备也可试用：$guantong demo --dir ~/guantong-demo"
  else
    say "Next: edit $config, then
  $guantong check --config $config
  $guantong run --config $config
To try it without a machine: $guantong demo --dir ~/guantong-demo" \
      "下一步：编辑 $config，然后
  $guantong check --config $config
  $guantong run --config $config
没有设备也可试用：$guantong demo --dir ~/guantong-demo"
  fi
  say "The page: http://127.0.0.1:8000/   Documentation: http://127.0.0.1:8000/docs, or $HERE/docs/index.html" \
    "网页：http://127.0.0.1:8000/   文档：http://127.0.0.1:8000/docs，或 $HERE/docs/index.html"
}

forget_old() { # every version but the present and the one before
  local folder
  for folder in "$prefix"/versions/*; do
    [[ $folder -ef $prefix/current || $folder -ef $prefix/previous ]] || rm -rf -- "$folder"
  done
}

# --- what is asked for ------------------------------------------------------------------------------------------------

do_install() {
  local version before='' running=()
  check_archive
  version=$(value version)
  choose_python
  check_machine
  check_place
  if [[ -L $prefix/current ]]; then before=$(readlink "$prefix/current"); fi
  mkdir -p "$prefix/versions"
  new=versions/$version-$(date -u +%Y%m%dT%H%M%S)-$$
  # whatever ends this before the switch leaves no half of a version behind
  trap 'rm -rf -- "$prefix/$new"' EXIT
  build_environment "$prefix/$new"
  mapfile -t running < <(active_units)
  if [[ $mode == system ]]; then prepare_machine; else prepare_user; fi
  printf '%s\n' "$mode" > "$prefix/installed"
  install -m 0755 "${BASH_SOURCE[0]}" "$prefix/.install.sh.new"
  mv -f "$prefix/.install.sh.new" "$prefix/install.sh"
  if [[ -n $before ]]; then point previous "$before"; fi
  point current "$new"
  trap - EXIT
  point bin current/bin
  forget_old
  if [[ -n $before ]]; then
    say "Upgraded. The version before is kept: $prefix/install.sh --rollback goes back" \
      "升级完成。旧版本已保留，可回退：$prefix/install.sh --rollback"
    restart "${running[@]}"
    if ((${#running[@]} == 0)); then
      say "A gateway that runs now keeps the old version until it is started again" "正在运行的网关要重新启动后才使用新版本"
    fi
    doctor
  else
    doctor
    next_steps
  fi
}

do_rollback() {
  local now told running=()
  [[ -L $prefix/previous && -d $prefix/previous/ ]] \
    || fail "there is no version before this one in $prefix" "$prefix 中没有更早的版本"
  mapfile -t running < <(active_units)
  now=$(readlink "$prefix/current")
  point current "$(readlink "$prefix/previous")"
  point previous "$now"
  told=$("$prefix/bin/guantong" version | head -n 1)
  say "Now: $told" "现在的版本：$told"
  say "A store that the newer version has changed may need the backup from before the upgrade: see offline in the documentation" \
    "若新版本已改动数据库结构，可能需要恢复升级前的备份，见文档《离线安装》"
  restart "${running[@]}"
}

do_uninstall() {
  local unit
  [[ -f $prefix/installed ]] || fail "there is no installation in $prefix" "$prefix 中没有安装"
  if [[ $mode == system ]]; then
    if systemd_runs; then systemctl disable --now --quiet "${UNITS[@]/%/.service}" || true; fi
    for unit in "${UNITS[@]}"; do rm -f -- "$UNITS_TO/$unit.service"; done
    rm -f -- "$SYSUSERS_TO/guantong.conf"
    if systemd_runs; then systemctl daemon-reload; fi
  fi
  rm -rf -- "$prefix/versions"
  rm -f -- "$prefix/bin" "$prefix/current" "$prefix/previous" "$prefix/installed" "$prefix/install.sh"
  rmdir --ignore-fail-on-non-empty -- "$prefix"
  say "Removed. Kept: $config, $data" "已卸载。保留：$config、$data"
  if [[ $mode == system ]]; then
    say "The user guantong stays, since the data are its own" "用户 guantong 保留（数据归其所有）"
  fi
}

"do_$action"
