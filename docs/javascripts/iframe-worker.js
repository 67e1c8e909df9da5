// A browser starts no worker for a page that it reads from the disk. There, the search runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.frame.srcdoc =
        "<script>postMessage = data => frameElement.dispatchEvent(new MessageEvent('message', { data }))</script>" +
        `<script src="${url}"></script>`
      this.frame.onload = () => {
        const messages = this.waiting
        this.waiting = null
        messages.forEach(data => this.postMessage(data))
      }
      this.frame.addEventListener("message", ({ data }) => {
        setTimeout(() => { // never within the call that asked, as with a worker
          const event = new MessageEvent("message", { data })
          this.dispatchEvent(event)
          this.onmessage?.(event)
        })
      })
      document.documentElement.append(this.frame)
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data)
      else setTimeout(() => this.frame.contentWindow?.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
