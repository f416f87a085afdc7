// Loaded before a server (node --import ./clock.mjs ... AHEAD): its whole process lives AHEAD milliseconds in the future, which is the last
// argument of the command; below 0 in the past. What the program asks of the date is shifted, whatever library asks; timers are not.

const Right = Date
const ahead = Number(process.argv.at(-1))

globalThis.Date = class Date extends Right {
  constructor(...given) {
    if (given.length) super(...given)
    else super(Right.now() + ahead)
  }

  static now() {
    return Right.now() + ahead
  }

  static [Symbol.hasInstance](value) {
    return value instanceof Right
  }
}
