"""The help of every command, option and argument in Chinese, by its English text: who changes the English finds the Chinese missing
(tests/cli/test_chinese.py)."""

from __future__ import annotations

from typing import Final

HELP: Final[dict[str, str]] = {
    # ------------------------------------------------------------------------------------------------- the command itself
    "Guantong (贯通): OPC UA and Modbus in; one schema, one bus, one store and one REST API out.":
        "贯通：接入 OPC UA 与 Modbus；输出统一的模型、总线、存储和 REST API。",
    "Install completion for the current shell.": "为当前 shell 安装命令补全。",
    "Show completion for the current shell, to copy it or customize the installation.": "显示当前 shell 的补全脚本，可复制或自定义安装。",
    # ---------------------------------------------------------------------------------------------------- shared by many
    "The configuration file; GUANTONG_CONFIG names it as well.": "配置文件；也可用 GUANTONG_CONFIG 指定。",
    "JSON instead of a table.": "输出 JSON 而不是表格。",
    "zh or en; the terminal's by default.": "zh 或 en；默认随终端语言。",
    "Seconds that an answer may take.": "等待应答的秒数。",
    "Seconds an answer may take.": "等待应答的秒数。",
    "Overwrite the file if it exists.": "文件已存在时覆盖。",
    "Id of the device.": "设备的 id。",
    # ------------------------------------------------------------------------------------------------------- run and demo
    "Run the gateway: all roles (and the embedded broker) under one parent, or one role alone.":
        "运行网关：由一个父进程管理全部进程（及内置代理），或单独运行一个进程。",
    "Only this role, in this process: collect, ingest or serve (for containers, systemd).":
        "仅在本进程中运行该角色：collect、ingest 或 serve（用于容器、systemd）。",
    "Run a simulated workshop and the gateway, and show what goes on. Ctrl-C stops everything.":
        "运行模拟车间与网关并显示运行情况。按 Ctrl-C 全部停止。",
    "Where its configuration and data lie; a second start goes on from there.": "配置与数据所在目录；再次启动时接着运行。",
    "Port of the REST API.": "REST API 的端口。",
    "Port of the embedded MQTT broker.": "内置 MQTT 代理的端口。",
    "How much faster than life the simulated processes run.": "模拟过程比实际快多少倍。",
    "First port of the simulators; other than 48400 only with a configuration to match.":
        "模拟设备的起始端口；不用 48400 时配置须一致。",
    "No screen: one line every ten seconds.": "不使用全屏显示：每十秒一行。",
    "Run simulated devices of the bundled workshop (all options: guantong simulate --help).":
        "运行自带车间的模拟设备（全部选项：guantong simulate --help）。",
    # --------------------------------------------------------------------------------------------------- init and schema
    "Write a commented configuration to begin with.": "写出一份带注释的起始配置。",
    "Where to write it; standard output without.": "写到哪里；省略则输出到标准输出。",
    "Without machines: they are added on the page.": "不含设备：之后在页面上添加。",
    "Print the JSON Schema of a wire type, of profiles or of the configuration, or the AsyncAPI document of the bus.":
        "输出 JSON Schema（报文类型、设备模板或配置），或总线的 AsyncAPI 文档。",
    "Which one; see --list.": "输出哪一个；见 --list。",
    "Only the names.": "只列出名称。",
    "Print the version.": "显示版本。",
    # -------------------------------------------------------------------------------------------------------------- apply
    "Have the running gateway take over the edited configuration; only links that change are begun anew.":
        "让运行中的网关采用修改后的配置；只重建有变化的链路。",
    "Only show what would change.": "只显示将会改变什么。",
    "Go back to the configuration before, or to the one with the number NUMBER.": "回退到上一份配置，或编号为 NUMBER 的配置。",
    "With --rollback: which one; see --history.": "与 --rollback 同用：哪一份；见 --history。",
    "List the configurations that are kept.": "列出保留的配置。",
    # --------------------------------------------------------------------------------------------------- backup and restore
    "Save configuration, profiles, certificates, keys and store to one file, while the gateway runs; read it again to be sure.":
        "网关运行时将配置、设备模板、证书、密钥与存储备份到一个文件，并回读核对。",
    "Where to: ends with .tar.zst or .tar.gz.": "目标文件：以 .tar.zst 或 .tar.gz 结尾。",
    "Replace what is there.": "替换已有内容。",
    "Restore a backup while the gateway is stopped. Nothing that is there is replaced without --force.":
        "在网关停止时恢复备份。不加 --force 不替换任何已有内容。",
    "A file that guantong backup has written.": "由 guantong backup 写出的文件。",
    # ------------------------------------------------------------------------------------------------------------- browse
    "Show what an OPC UA server offers: endpoints, known address spaces, and its tree with live values. Ctrl-C shows what was found.":
        "显示 OPC UA 服务器的内容：端点、已知的地址空间，以及带当前值的节点树。按 Ctrl-C 显示已找到的内容。",
    "opc.tcp://HOST:PORT": "服务器地址 opc.tcp://HOST:PORT",
    "NodeId to begin below; the Objects folder by default.": "从该 NodeId 之下开始；默认为 Objects 文件夹。",
    "Only variables whose name, path or NodeId fits; * and ? match many.": "只显示名称、路径或 NodeId 相符的变量；可用 * 和 ? 通配。",
    "Levels to go down.": "向下浏览的层数。",
    "Write the variables shown as a profile, or as a point table with --table.": "将所示变量写成设备模板，或用 --table 写成点表。",
    "With --pick: the point table to write (.xlsx or .csv).": "与 --pick 同用：要写的点表（.xlsx 或 .csv）。",
    "With --pick: the profile to write.": "与 --pick 同用：要写的设备模板。",
    "With --pick: id of the device.": "与 --pick 同用：设备的 id。",
    "User name; anonymous without it.": "用户名；省略则匿名登录。",
    "Environment variable that holds the password.": "存放密码的环境变量名。",
    "none, auto (the strongest that the server offers), or a policy such as Basic256Sha256.":
        "none、auto（服务器提供的最强方式），或指定策略，如 Basic256Sha256。",
    "PEM or DER file; without it the gateway's own certificate and its trusted ones count (guantong certs).":
        "PEM 或 DER 文件；不写则使用网关自己的证书及其受信任列表（guantong certs）。",
    "Send the password in clear if the server knows no other way.": "服务器不支持加密密码时，允许以明文发送。",
    "Only the endpoints and their security.": "只显示端点及其安全策略。",
    # ---------------------------------------------------------------------------------------------------------- test-read
    "Read one point of a device that is not configured: what arrived, and what it means.":
        "试读未配置设备的一个点：收到的内容及其含义。",
    "Read one Modbus point: its registers, its value, and what other types and byte orders would give.":
        "试读一个 Modbus 点：寄存器、数值，以及其他类型和字节序的结果。",
    "HOST or HOST:PORT.": "主机地址 HOST 或 HOST:PORT。",
    "Address on the wire, from 0; 0x1000 is understood.": "报文地址，从 0 起；可写 0x1000。",
    "Number as printed in manuals, from 1, instead.": "或用手册上的编号，从 1 起。",
    "Unit id (station number).": "站号（单元标识）。",
    "holding, input, coil or discrete.": "寄存器区：holding、input、coil 或 discrete。",
    "int16, uint16, int32, float32, …": "数据类型：int16、uint16、int32、float32 等。",
    "ABCD, CDAB, BADC or DCBA.": "字节序：ABCD、CDAB、BADC 或 DCBA。",
    "Registers of a string or of bytes.": "字符串或字节串占用的寄存器数。",
    "tcp or rtu-over-tcp.": "传输方式：tcp 或 rtu-over-tcp。",
    "Read one OPC UA node: the DataValue as it came, its type and unit.": "试读一个 OPC UA 节点：原样的 DataValue、类型与单位。",
    "NodeId: nsu=URI;s=NAME, ns=2;s=NAME or i=2258.": "节点标识：nsu=URI;s=NAME、ns=2;s=NAME 或 i=2258。",
    # -------------------------------------------------------------------------------------------------- check, read, doctor
    "Check the configuration, reach each device, the bus and the store; say what is wrong and how to mend it.":
        "检查配置，并连接每个设备、总线和存储；指出问题与处理办法。",
    "Example: guantong check --config workshop.yaml    (exit code 0: all well; 1: something is not; 2: configuration)":
        "示例：guantong check --config workshop.yaml    （退出码 0：全部正常；1：有异常；2：配置错误）",
    "Read signals of a device once, now, over a connection of this command's own: what arrived and what it means.":
        "用本命令自己的连接立即读取设备的信号一次：收到的内容及其含义。",
    "Name of the signal; * and ? match many.": "信号名；可用 * 和 ? 通配。",
    "Look at clock, disk, network, ports, permissions and reachable devices; say what is wrong and how to mend it.":
        "检查时钟、磁盘、网络、端口、权限与设备可达性；指出问题与处理办法。",
    "Examples: guantong doctor    guantong doctor --config workshop.yaml --json    (exit code 1: something fails)":
        "示例：guantong doctor    guantong doctor --config workshop.yaml --json    （退出码 1：有未通过项）",
    # ------------------------------------------------------------------------------------------------ capture and support
    "Show the last 500 frames of a device's link and those that follow, each with its meaning. Nothing is sent to the device.":
        "显示设备所在链路最近 500 帧及后续报文，并逐帧解释。不向设备发送任何内容。",
    "Id of the device; the frames are those of its whole link.": "设备的 id；显示的是其整条链路的报文。",
    "How long: 30s, 10m, 1h; 0s: only what memory holds.": "时长：30s、10m、1h；0s 表示只取内存中已有的。",
    "A .txt or .pcapng (Wireshark) file; standard output without.": ".txt 或 .pcapng（Wireshark）文件；省略则输出到标准输出。",
    "Pack logs, configuration without secrets, versions, states, ledger, frames and doctor's findings into one file.":
        "将日志、去除密码的配置、版本、状态、账本、报文和诊断结果打包成一个文件。",
    "The zip file; by default guantong-support-TIME.zip here.": "zip 文件；默认为当前目录的 guantong-support-TIME.zip。",
    "A log file to put in as well; may be repeated.": "一并打包的日志文件；可重复。",
    # ---------------------------------------------------------------------------------------------------- devices and tail
    "List the devices with state, reason and fix.": "列出设备的状态、原因与处理办法。",
    "Address of the API; that of the configuration by default.": "API 地址；默认取自配置。",
    "Key of the API.": "API 密钥。",
    "Show readings as they are stored, until Ctrl-C.": "持续显示入库的读数，按 Ctrl-C 结束。",
    "Which signals: DEVICE/NAME, * and ? match.": "哪些信号：DEVICE/NAME，可用 * 和 ? 通配。",
    # ------------------------------------------------------------------------------------------------------------- points
    "Point tables: devices and signals as a spreadsheet (.xlsx) or CSV.": "点表：用电子表格（.xlsx）或 CSV 描述设备与信号。",
    "Write an empty point table with drop-downs and examples.": "写出带下拉选项和示例的空点表。",
    "The table to write: .xlsx or .csv.": "要写的点表：.xlsx 或 .csv。",
    "CSV in GBK instead of UTF-8.": "CSV 使用 GBK 而不是 UTF-8。",
    "Make a configuration (or a profile) of a point table; every bad cell is named, and then nothing is written.":
        "由点表生成配置（或设备模板）；有错误时逐个单元格指出，且不写入任何内容。",
    "The table: .xlsx or .csv (UTF-8 or GBK).": "点表：.xlsx 或 .csv（UTF-8 或 GBK）。",
    "The file to write; beside the table by default.": "要写的文件；默认与点表在同一目录。",
    "Keep everything else of this configuration (its comments are lost).": "保留该配置的其余部分（注释会丢失）。",
    "Write a profile of this name from the table's only device instead.": "改为由表中唯一的设备写出该名称的设备模板。",
    "Write the links, devices and signals of a configuration as a point table; what it cannot hold is named.":
        "将配置中的链路、设备与信号写成点表；无法容纳的内容会逐项说明。",
    # ------------------------------------------------------------------------------------------------ discover and explain
    "Find the devices, units and readable ranges behind an address.": "查找某个地址后面的设备、站号与可读范围。",
    "Find units, what they say they are, and which registers can be read. Read-only, slow, and only when you agree.":
        "查找站号、设备自述的标识以及可读的寄存器。只读、慢速，并在征得同意后进行。",
    "Address; port 502 by default.": "地址；默认端口 502。",
    "The other end passes serial frames on.": "对端透传串口帧（RTU over TCP）。",
    "A serial port, best one of /dev/serial/by-id, instead of a host.": "改用串口，最好取自 /dev/serial/by-id。",
    "Serial: only this one, such as 9600-8N1; all six are tried otherwise.": "串口：只用该参数，如 9600-8N1；否则依次尝试六种。",
    "Unit numbers to look for, such as 1-32,100.": "要查找的站号，如 1-32,100。",
    "Tables to look at: holding, input, coil, discrete; separated by commas.": "要查看的寄存器区：holding、input、coil、discrete；以逗号分隔。",
    "Wire addresses to look at.": "要查看的报文地址。",
    "Also begin at every so manieth address; 0: only where devices usually begin.":
        "另外每隔若干地址开始一次；0 表示只从常见的起始地址开始。",
    "Requests altogether at most.": "请求总数上限。",
    "Requests a second at most.": "每秒请求数上限。",
    "Serial: seconds to listen for another master first.": "串口：先静听其他主站的秒数。",
    "Write a point table (.xlsx or .csv) of what can be read; must not exist.": "将可读内容写成点表（.xlsx 或 .csv）；文件不得已存在。",
    "Do not ask before the first request.": "发送第一个请求前不再询问。",
    "Watch live values and propose what they mean.": "观察实时值并推测其含义。",
    "Watch live registers and propose type, byte order and scale of each, with reason, confidence and alternatives.":
        "观察寄存器的实时值，推测各自的类型、字节序与比例，并给出理由、可信度和其他可能。",
    "Unit number.": "站号。",
    "What to watch, such as holding:0-49; may be given again. Without it the readable ranges are searched first.":
        "观察哪些寄存器，如 holding:0-49；可重复。省略则先查找可读范围。",
    "Seconds to watch.": "观察的秒数。",
    "Seconds from look to look.": "两次读取之间的秒数。",
    "Write a point table (.xlsx, .csv) or a profile (.yaml); must not exist.":
        "写出点表（.xlsx、.csv）或设备模板（.yaml）；文件不得已存在。",
    # ------------------------------------------------------------------------------------------------------------- certs
    "OPC UA certificates: the gateway's own, and whom it trusts.": "OPC UA 证书：网关自己的证书，以及信任哪些证书。",
    "List the gateway's own certificate, those that are trusted, their issuers, and those that were rejected.":
        "列出网关自己的证书、受信任的证书、签发者，以及被拒绝的证书。",
    "Show everything in a certificate; the gateway's own is made if there is none yet.":
        "显示证书的全部内容；网关尚无证书时自动生成。",
    "`own`, or the fingerprint of any other.": "`own`（网关自己的），或其他证书的指纹。",
    "Trust a server, or an authority and all that it issues. Links that wait for it connect within seconds.":
        "信任某个服务器，或某个签发机构及其签发的全部证书。等待中的链路会在几秒内连接。",
    "Fingerprint of a rejected certificate, or a file: .der, .pem, .crt, .crl.":
        "被拒绝证书的指纹，或文件：.der、.pem、.crt、.crl。",
    "An authority that only completes a chain: what it issues is not trusted by itself.":
        "仅用于补全证书链的签发机构：其签发的证书并不因此受信任。",
    "Trust a certificate no longer; an open connection stays until it is made anew.":
        "不再信任某个证书；已建立的连接保留到下次重建。",
    "SHA-256 or SHA-1 of the certificate in hex, at least the first 8 digits; see guantong certs list.":
        "证书的 SHA-256 或 SHA-1（十六进制），至少前 8 位；见 guantong certs list。",
    "Delete a certificate, wherever it lies.": "删除证书，无论它在哪个目录。",
    "Forget which protection and certificate a link has agreed on: its next connection is a first contact.":
        "忘记链路约定的安全策略与证书：下次连接按首次接触处理。",
    "Id of the link.": "链路的 id。",
    "Make a new key and certificate for the gateway. Every server must trust the new one before the gateway gets in again.":
        "为网关生成新的密钥与证书。所有服务器须先信任新证书，网关才能再次连接。",
    "Do not ask.": "不再询问。",
    "Write the gateway's certificate, without its key, to be imported into a server; it is made if there is none yet.":
        "写出网关证书（不含私钥），供导入服务器；尚无证书时自动生成。",
    "Where to write it: .der, or .pem and .crt as text.": "写到哪里：.der，或文本形式的 .pem、.crt。",
    "Overwrite the file.": "覆盖该文件。",
    # ---------------------------------------------------------------------------------------------------- key and ledger
    "Keys of the API. Only their hashes are stored; a key is shown once.": "API 密钥。只保存其哈希值；密钥只显示一次。",
    "Make a key and show it, once.": "生成密钥并显示一次。",
    "Whose key it is.": "密钥属于谁。",
    "What it may do; only reading so far.": "权限；目前仅限读取。",
    "List the keys.": "列出密钥。",
    "End a key.": "作废密钥。",
    "Whose key ends.": "作废谁的密钥。",
    "Per stream: in the outbox, sent, confirmed, stored, gaps.": "按流显示：发件箱中、已发送、已确认、已入库、缺口。",
    "Walk outbox, hash chain, store and gaps against each other; changes nothing. Exit code 1: something is wrong.":
        "将发件箱、哈希链、存储与缺口相互核对；不作任何更改。退出码 1：发现问题。",
    "Give the outbox to another store: what the new one lacks and the outbox still holds is sent to it.":
        "将发件箱交给另一个存储：新存储缺少而发件箱仍保留的内容会发送给它。",
    "Example: guantong ledger adopt 3f0c…    (stop the collector first)": "示例：guantong ledger adopt 3f0c…    （请先停止采集进程）",
    "Id of the store that shall confirm from now on.": "今后负责确认的存储的 id。",
    # --------------------------------------------------------------------------------------------------------- dead letters
    "What arrived and could not be stored: the reason of each, and what is in it.": "已到达但未能入库的内容：各自的原因与内容。",
    "Also those that were replayed or discarded.": "也列出已重放或已丢弃的。",
    "Show one: what is in it, decoded as far as possible, and its bytes.": "显示一条：尽可能解码的内容及其字节。",
    "Number of the dead letter.": "死信的编号。",
    "Numbers of dead letters, as the list shows them.": "死信的编号，见列表。",
    "All that wait.": "所有待处理的。",
    "Try to store them again, after an upgrade or a repair. Ingest does it, each exactly once; what still cannot be stored waits on.":
        "升级或修复之后再次尝试入库。由 ingest 执行，每条恰好一次；仍无法入库的继续等待。",
    "Seconds to wait for ingest; 0: only ask.": "等待 ingest 的秒数；0 表示只提出请求。",
    "Never store them. They stay in the store, with the reason, and are no longer counted as waiting.":
        "不再入库。它们连同原因保留在存储中，不再计为待处理。",
    "Why; it is kept.": "原因；会保留。",
}  # fmt: skip
